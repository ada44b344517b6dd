"""A supervisor serves one exec after the other, and what was told to one is not told to the next."""

import os
import resource
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ringfence.guest.protocol import Answer, Ask

from .filtered import filter_call
from .raw import Guest

KEPT = 4
"""Supervisors that wait for a job, at most."""


def test_a_supervisor_serves_again_when_its_command_left_nobody(guest: Guest) -> None:
    parents = {guest.raw.run("sh", "-c", "echo $PPID").stdout for _ in range(3 * KEPT)}
    assert len(parents) <= KEPT


def test_commands_one_after_the_other_have_the_same_supervisor(guest: Guest) -> None:
    held = guest.raw.start("sleep", "1000")
    guest.raw.started(held)
    parents = {guest.raw.run("sh", "-c", "echo $PPID").stdout for _ in range(3 * KEPT)}
    assert len(parents) == 1


def test_a_command_that_came_with_the_greeting_has_the_only_supervisor(
    start_guest: Callable[..., Guest],
) -> None:
    guest = start_guest("--stream")
    greeting = struct.pack("<I16s16sIQB", 1, os.urandom(16), bytes(16), 60_000, 0, 0)
    guest.raw.send(Ask.HELLO, 0, greeting)
    command = guest.raw.start("true")
    assert guest.raw.frame()[0] == Answer.HELLO
    assert guest.raw.ending(command).status == 0
    agent = guest.host_pid(1)
    assert len(Path(f"/proc/{agent}/task/{agent}/children").read_text().split()) == 1


def test_a_supervisor_with_a_family_left_does_not(guest: Guest) -> None:
    script = "sleep 1000 <&- >&- 2>&- & echo $PPID"
    parents = [guest.raw.run("sh", "-c", script) for _ in range(KEPT + 2)]
    assert {ending.proof for ending in parents} == {3}
    assert len({ending.stdout for ending in parents}) == KEPT + 2


@pytest.mark.parametrize(
    ("op", "payload"), [(Ask.SIGNAL, struct.pack("<IB", 9, 0)), (Ask.KILL, b"")]
)
def test_what_comes_too_late_for_one_command_spares_the_next(
    guest: Guest, op: int, payload: bytes
) -> None:
    for _ in range(3 * KEPT):
        operation_id = guest.raw.start("true")
        guest.raw.send(op, operation_id, payload)
        assert guest.raw.ending(operation_id).status in (0, 9)
        assert guest.raw.run("sh", "-c", "exit 7").status == 7 << 8


def _limit_files(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def test_a_supervisor_serves_again_beside_many_commands(start_guest: Callable[..., Guest]) -> None:
    guest = start_guest("--stream", before=partial(_limit_files, 8192))
    guest.raw.hello()
    for _ in range(100):
        guest.raw.started(guest.raw.start("sleep", "1000"))
    parents = {guest.raw.run("sh", "-c", "echo $PPID").stdout for _ in range(3 * KEPT)}
    assert len(parents) <= KEPT


def test_each_of_many_commands_takes_four_descriptors_of_a_guest_that_has_few(
    start_guest: Callable[..., Guest],
) -> None:
    """Three streams and its supervisor: a limit of 4096 has room for the thousand of a session."""
    guest = start_guest("--stream", before=partial(_limit_files, 4096))
    guest.raw.hello()
    held = Path(f"/proc/{guest.host_pid(1)}/fd")
    counts = []
    for _ in range(2):
        for _ in range(100):
            guest.raw.started(guest.raw.start("sleep", "1000", flags=32 | 1))
        counts.append(len(list(held.iterdir())))
    assert counts[1] - counts[0] <= 400 + KEPT


def test_a_job_leaves_nothing_in_its_supervisor(guest: Guest) -> None:
    long = "x" * 100_000
    script = "echo $PPID ${#1}; exec sleep 1000"
    first = guest.raw.start("sh", "-c", script, "sh", long)
    guest.raw.started(first)
    inside = int(guest.raw.output(first, b" 100000\n").split()[0])
    supervisor = guest.host_pid(inside)
    descriptors = list(Path(f"/proc/{supervisor}/fd").iterdir())
    assert len(descriptors) == 4, "the standard ones and the agent's"
    assert "memfd:job" not in Path(f"/proc/{supervisor}/maps").read_text()


def test_the_memory_of_a_large_job_is_not_counted_on_later_commands(guest: Guest) -> None:
    """A command's own peak begins with what its supervisor ever had."""
    before = max(guest.raw.run("true").fields[11] for _ in range(3 * KEPT))
    guest.raw.run("true", *["x" * 100_000] * 15)
    after = [guest.raw.run("true").fields[11] for _ in range(3 * KEPT)]
    assert max(after) < before + 400, "KiB"


def _without_close_range() -> None:
    """As a kernel before 5.9, or gVisor's; with a descriptor open that is far from the others."""
    filter_call("close_range", action="SCMP_ACT_ERRNO", errnoRet=38)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    os.dup2(0, 2500)


def test_where_a_range_cannot_be_closed_each_that_is_open_is(
    start_guest: Callable[..., Guest],
) -> None:
    guest = start_guest("--stream", before=_without_close_range)
    guest.raw.hello()
    held = guest.raw.start("sleep", "1000")
    guest.raw.started(held)
    for _ in range(KEPT):
        operation_id = guest.raw.start("sh", "-c", "echo $PPID; exec sleep 1000")
        guest.raw.started(operation_id)
        supervisor = guest.host_pid(int(guest.raw.output(operation_id, b"\n")))
        descriptors = list(Path(f"/proc/{supervisor}/fd").iterdir())
        assert len(descriptors) == 4, "the standard ones and the agent's"
