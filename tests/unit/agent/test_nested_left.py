"""What commands leave behind them is no later one's: usage, what root has, supervisors that wait."""

import os
import resource
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.guest import build
from ringfence.guest.protocol import Ask
from tests.conftest import require_bwrap, require_root

from .raw import until
from .wrapped import WHO, Wrapped

USER, SYSTEM, PEAK, FAULTS = 9, 10, 11, 12
"""Of EXIT: microseconds, KiB, a count."""
BEFORE_KIB, OWN_KIB = 120 << 10, 60 << 10
HEAVY = f"x = bytearray({BEFORE_KIB} << 10)\nfor _ in range(10_000_000): pass"
LESS = f"x = bytearray({OWN_KIB} << 10)\nprint('grown', flush=True)\ninput()"
WRITES = """
cat /proc/self/oom_score_adj /proc/self/coredump_filter
echo 900 > /proc/1/oom_score_adj && echo 0x7f > /proc/1/coredump_filter
"""


@pytest.fixture
def zero() -> Iterator[Wrapped]:
    """One whose user is root in its user namespace."""
    require_root()
    require_bwrap()
    started = Wrapped(build.target(), uid=0)
    started.raw.hello()
    yield started
    started.close()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def supervisors(guest: Wrapped) -> int:
    agent = guest.host_pid(1)
    return len(Path(f"/proc/{agent}/task/{agent}/children").read_text().split())


def spent(fields: tuple[int, ...]) -> int:
    return fields[USER] + fields[SYSTEM]


def test_what_root_writes_to_its_supervisor_is_no_other_commands(zero: Wrapped) -> None:
    """It owns that one's files in /proc, without any capability."""
    first = zero.run("sh", "-c", WRITES)
    assert first.status == 0, first.stderr
    assert zero.run("sh", "-c", WRITES).stdout == first.stdout


def test_root_has_commands_in_a_row_all_the_same(zero: Wrapped) -> None:
    endings = [zero.run("id", "-u") for _ in range(5)]
    assert {(ending.status, ending.stdout, ending.proof) for ending in endings} == {(0, b"0\n", 1)}


def test_a_killed_command_has_used_what_it_used(wrapped: Wrapped) -> None:
    before = wrapped.run("python3", "-c", HEAVY)
    killed = wrapped.raw.start("sleep", "1000", who=WHO)
    assert wrapped.raw.started(killed) == before.pid + 1
    wrapped.raw.send(Ask.KILL, killed)
    ending = wrapped.raw.ending(killed)
    assert ending.status == signal.SIGKILL
    assert spent(ending.fields) < spent(before.fields)
    assert 0 < ending.fields[PEAK] < BEFORE_KIB < before.fields[PEAK]
    assert ending.fields[FAULTS] < before.fields[FAULTS]


@pytest.mark.parametrize("before", [HEAVY, "pass"])
def test_a_killed_command_has_its_own_peak(wrapped: Wrapped, before: str) -> None:
    wrapped.run("python3", "-c", before)
    killed = wrapped.raw.start("python3", "-c", LESS, who=WHO, flags=32 | 1)
    wrapped.raw.started(killed)
    wrapped.raw.output(killed, b"grown\n")
    wrapped.raw.send(Ask.KILL, killed)
    peak = wrapped.raw.ending(killed).fields[PEAK]
    assert OWN_KIB < peak < BEFORE_KIB


def test_a_lost_command_has_not_used_what_others_did(wrapped: Wrapped) -> None:
    """Its pid in the namespace is that of the namespace's first process in the agent's."""
    before = wrapped.run("python3", "-c", HEAVY)
    lost = wrapped.raw.start("sleep", "1000", who=WHO, env=(wrapped.name,))
    pid = wrapped.raw.started(lost)
    first = parent(wrapped.marked()[0])
    assert f"\t{pid}\t1\n" in Path(f"/proc/{first}/status").read_text()
    os.kill(parent(first), signal.SIGKILL)
    ending = wrapped.raw.ending(lost)
    assert ending.status == signal.SIGKILL
    assert spent(ending.fields) < spent(before.fields)


def test_few_supervisors_wait_where_they_take_of_the_processes(wrapped: Wrapped) -> None:
    """They are of the user whose processes the limit counts."""
    limits = ((resource.RLIMIT_NPROC, 100, 100),)
    ids = [wrapped.raw.start("sleep", "1000", who=WHO, limits=limits) for _ in range(6)]
    for operation_id in ids:
        wrapped.raw.send(Ask.SIGNAL, operation_id, struct.pack("<IB", signal.SIGTERM, 0))
        wrapped.raw.ending(operation_id)
    until(lambda: supervisors(wrapped) == 1, "the others have ended")
