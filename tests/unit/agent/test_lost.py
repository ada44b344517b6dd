"""A supervisor that is killed from outside costs no command that had not begun, and no result that it knew."""

import ctypes
import os
import platform
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.guest.protocol import Ask

from .filtered import filter_call
from .raw import Guest, until
from .traced import Traced
from .wrapped import Wrapped

STDIN_OPEN, SEARCH = 1, 32
LOST = 5
SENDTO = {"x86_64": 44, "aarch64": 206}[platform.machine()]
PIDFD_GETFD = 438
CLONE = {"x86_64": 56, "aarch64": 220}[platform.machine()]


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def waiting(guest: Guest) -> int:
    """The host's number of the only supervisor, which waits for a job."""
    agent = guest.host_pid(1)
    until(lambda: len(children(agent)) == 1, "one supervisor waits")
    return children(agent)[0]


def signalled(number: int, state: str, *pids: int) -> None:
    """Sent to each, which is in that state then: one that only wakes up for it may take a message yet."""
    for pid in pids:
        os.kill(pid, number)
        stat = Path(f"/proc/{pid}/stat")
        until(lambda stat=stat: stat.read_text().rpartition(")")[2].split()[0] == state, state)


@pytest.fixture(params=["guest", "wrapped"])
def any_guest(request: pytest.FixtureRequest) -> Guest:
    """With a pid namespace for each supervisor, and without."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("size", [1, 100_000], ids=["inline", "in a memory file"])
def test_a_job_that_waited_for_a_supervisor_when_that_died_is_anothers(
    any_guest: Guest, size: int
) -> None:
    """The message lay unread, with all that was told after it."""
    raw = any_guest.raw
    raw.run("true")
    supervisor = waiting(any_guest)
    signalled(signal.SIGSTOP, "T", supervisor, *children(supervisor))
    command = raw.start(
        "sh",
        "-c",
        'echo ${#1}; read line; exit "$line"',
        "sh",
        "x" * size,
        flags=STDIN_OPEN | SEARCH,
    )
    assert raw.ask(Ask.LIST), "it has given out the job"
    os.kill(supervisor, signal.SIGKILL)
    raw.started(command)
    raw.output(command, f"{size}\n".encode())
    raw.send(Ask.STDIN, command, b"3\n")
    assert raw.ending(command).status == 3 << 8


def test_a_signal_goes_to_another_supervisor_behind_its_job(any_guest: Guest) -> None:
    raw = any_guest.raw
    raw.run("true")
    supervisor = waiting(any_guest)
    signalled(signal.SIGSTOP, "T", supervisor, *children(supervisor))
    command = raw.start("sleep", "1000")
    raw.send(Ask.SIGNAL, command, struct.pack("<IB", signal.SIGTERM, 0))
    assert raw.ask(Ask.LIST), "it has given out the job"
    os.kill(supervisor, signal.SIGKILL)
    assert raw.ending(command).status == signal.SIGTERM


def test_a_job_is_anothers_where_the_first_process_of_the_namespace_died(wrapped: Wrapped) -> None:
    """The supervisor outside of it ends by itself then."""
    wrapped.run("true")
    supervisor = waiting(wrapped)
    (inner,) = children(supervisor)
    signalled(signal.SIGSTOP, "T", supervisor, inner)
    command = wrapped.raw.start("sh", "-c", "exit 3")
    assert wrapped.raw.ask(Ask.LIST), "it has given out the job"
    signalled(signal.SIGKILL, "Z", inner)
    os.kill(supervisor, signal.SIGCONT)
    assert wrapped.raw.ending(command).status == 3 << 8


def _kills_supervisors() -> None:
    """With the first that each of them does, which nobody else does."""
    filter_call("close_range", action="SCMP_ACT_KILL_PROCESS")


def test_a_job_is_given_up_where_each_supervisor_dies_before_it_reads_it(
    start_guest: Callable[..., Guest],
) -> None:
    guest = start_guest("--stream", before=_kills_supervisors)
    guest.raw.hello()
    with pytest.raises(OSError, match="before the start"):
        guest.raw.run("true")


def test_a_kill_for_a_job_that_nobody_took_does_not_start_it(guest: Guest, directory: Path) -> None:
    directory.chmod(0o777)
    guest.raw.run("true")
    supervisor = waiting(guest)
    signalled(signal.SIGSTOP, "T", supervisor)
    command = guest.raw.start("touch", f"{directory}/never")
    guest.raw.send(Ask.KILL, command)
    with pytest.raises(OSError, match="before the start"):
        guest.raw.ending(command)
    assert not list(directory.iterdir())


def test_a_job_that_a_supervisor_took_is_nobody_elses(guest: Guest, directory: Path) -> None:
    """It died as it was about to start it: whether it did is not for the agent to guess."""
    directory.chmod(0o777)
    guest.raw.run("true")
    traced = Traced(waiting(guest))
    command = guest.raw.start("touch", f"{directory}/never")
    traced.kill_before(CLONE)
    with pytest.raises(OSError, match="as it started"):
        guest.raw.ending(command)
    assert not list(directory.iterdir())


def test_a_command_whose_start_was_not_reported_is_lost_and_had_begun(
    guest: Guest, directory: Path
) -> None:
    """It runs once."""
    directory.chmod(0o777)
    guest.raw.run("true")
    traced = Traced(waiting(guest))
    script = 'echo $$ >>"$0/begun"; exec sleep 1000'
    command = guest.raw.start("sh", "-c", script, str(directory), env=(guest.name,))
    traced.kill_before(SENDTO)
    pid = guest.raw.started(command)
    ending = guest.raw.ending(command)
    assert (ending.status, ending.reason, ending.proof) == (signal.SIGKILL, LOST, 1)
    begun = "".join(path.read_text() for path in directory.iterdir())
    assert begun in ("", f"{pid}\n"), "it may have been killed before it wrote"
    assert guest.marked() == []


def test_a_command_whose_end_was_not_reported_has_its_result(guest: Guest) -> None:
    """Its supervisor had seen it end, and was killed before it said so."""
    script = "echo $PPID; read line; sleep 1000 & echo over; exit 7"
    options = {"flags": STDIN_OPEN | SEARCH, "env": (guest.name,)}
    command = guest.raw.start("sh", "-c", script, **options)
    guest.raw.started(command)
    traced = Traced(guest.host_pid(int(guest.raw.output(command, b"\n"))))
    guest.raw.send(Ask.STDIN, command, b"go\n")
    traced.kill_before(SENDTO)
    ending = guest.raw.ending(command)
    assert (ending.status, ending.reason, ending.stdout) == (7 << 8, 0, b"over\n")
    assert guest.marked() == [], "what it left is nobody's to look after"
    assert guest.raw.run("sh", "-c", "exit 3").status == 3 << 8


def sockets(pid: int) -> dict[str, int]:
    """By name; the descriptor of each."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if str(entry.readlink()).startswith("socket:"):
            found[str(entry.readlink())] = int(entry.name)
    return found


def test_a_command_that_died_with_its_supervisor_did_not_end_by_itself(wrapped: Wrapped) -> None:
    """The namespace's first process may hear of the end of the one outside before it dies of it."""
    wrapped.run("true")
    supervisor = waiting(wrapped)
    (inner,) = children(supervisor)
    command = wrapped.raw.start("sleep", "1000", who=wrapped.who)
    wrapped.raw.started(command)
    signalled(signal.SIGSTOP, "T", inner)
    (between,) = sockets(supervisor).keys() - sockets(inner).keys()
    held = os.pidfd_open(supervisor)
    copied = ctypes.CDLL(None).syscall(PIDFD_GETFD, held, sockets(supervisor)[between], 0)
    os.close(held)
    with socket.socket(fileno=copied) as end:
        end.shutdown(socket.SHUT_RDWR)
    os.kill(inner, signal.SIGCONT)
    ending = wrapped.raw.ending(command)
    assert (ending.status, ending.reason) == (signal.SIGKILL, LOST)


def test_a_later_command_has_no_result_of_an_earlier_one(guest: Guest) -> None:
    """The same supervisor, killed when it has taken the second's job."""
    assert guest.raw.run("sh", "-c", "exit 7").status == 7 << 8
    traced = Traced(waiting(guest))
    command = guest.raw.start("true")
    traced.kill_before(CLONE)
    with pytest.raises(OSError, match="as it started"):
        guest.raw.ending(command)
