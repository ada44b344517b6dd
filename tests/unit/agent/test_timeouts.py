"""A command that ends as its timeout is over ended by itself, or of the timeout: never both."""

import contextlib
import os
import signal
import struct
import time
from pathlib import Path

import pytest

from ringfence.guest.protocol import Ask

from .raw import Ending, Guest, until

OPEN, SEARCH = 1, 32
ITSELF, TIMEOUT = 0, 1
TERM_HANDLED = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"


def state_of(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


def ends_unseen(
    guest: Guest, code: int, seconds: float, grace: int, more: float, *signals: int
) -> tuple[Ending, bool]:
    """A command that exits while its supervisor stands still, until `more` seconds after its timeout;
    and whether it exited before that. It ignores signals; these are sent to it before."""
    script = f"trap '' TERM USR1; echo $PPID; read line; exit {code}"
    over = time.monotonic() + seconds
    timeout = round(seconds * 1000)
    started = guest.raw.start("sh", "-c", script, flags=OPEN | SEARCH, timeout=timeout, grace=grace)
    inside = guest.raw.started(started)
    supervisor = guest.host_pid(int(guest.raw.output(started, b"\n")))
    command = guest.host_pid(inside)
    for number in signals:
        guest.raw.send(Ask.SIGNAL, started, struct.pack("<IB", number, 0))
    os.kill(supervisor, signal.SIGSTOP)
    try:
        guest.raw.send(Ask.STDIN, started, b"go\n")
        until(lambda: state_of(command) == "Z", "the command exited")
        in_time = time.monotonic() < over
        time.sleep(max(0, over + more - time.monotonic()))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor, signal.SIGCONT)
    return guest.raw.ending(started), in_time


def ends_unseen_in_time(guest: Guest, code: int, *signals: int) -> Ending:
    """In the grace that follows nobody kills it. A busy machine is given more time."""
    for seconds in (2.0, 20.0):
        ending, in_time = ends_unseen(guest, code, seconds, 60_000, 0.2, *signals)
        if in_time:
            return ending
    raise AssertionError("this machine is too slow")


@pytest.mark.parametrize("code", [0, 7])
def test_an_end_that_was_not_seen_yet_is_no_timeout(guest: Guest, code: int) -> None:
    """Its supervisor finds it ended when it is told of the timeout: nothing reached it."""
    ending = ends_unseen_in_time(guest, code)
    assert (ending.reason, ending.status) == (ITSELF, code << 8)
    assert guest.raw.run("sh", "-c", "exit 7").status == 7 << 8


def test_a_kill_that_came_too_late_is_no_timeout(guest: Guest) -> None:
    """Without a grace the status tells. A supervisor that stands still for long is killed itself."""
    ending, _ = ends_unseen(guest, 0, seconds=5.0, grace=0, more=0.05)
    assert (ending.reason, ending.status) in ((ITSELF, 0), (TIMEOUT, signal.SIGKILL))
    assert guest.raw.run("sh", "-c", "exit 7").status == 7 << 8


def test_the_status_of_a_command_whose_supervisor_was_lost_tells_as_well(guest: Guest) -> None:
    ending, _ = ends_unseen(guest, 0, seconds=5.0, grace=0, more=2.0)
    assert (ending.reason, ending.status) in ((ITSELF, 0), (TIMEOUT, signal.SIGKILL))


def test_a_signal_of_somebody_elses_is_no_timeout(guest: Guest) -> None:
    """One that was sent before the command ended by itself."""
    ending = ends_unseen_in_time(guest, 0, signal.SIGUSR1)
    assert (ending.reason, ending.status) == (ITSELF, 0)


def test_who_ends_in_the_grace_ends_of_the_timeout_with_a_status_of_its_own(guest: Guest) -> None:
    ending = guest.raw.run("sh", "-c", TERM_HANDLED, timeout=3000, grace=60_000)
    assert ending.stdout == b"ready\n"
    assert (ending.reason, ending.status) == (TIMEOUT, 0)
    ending = guest.raw.run("sleep", "1000", timeout=100, grace=60_000)
    assert (ending.reason, ending.status) == (TIMEOUT, signal.SIGTERM)
    ending = guest.raw.run("sleep", "1000", timeout=100)
    assert (ending.reason, ending.status) == (TIMEOUT, signal.SIGKILL)
