"""Whoever an exec left behind is gone when its kill is reported."""

import contextlib
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence.guest.protocol import HEADER, Answer, Ask, Cred

from .raw import Guest, exec_payload, until

ESCAPEES = """
trap '' TERM HUP INT
for n in 1 2 3 4 5; do setsid sleep 1000 & done
for n in 1 2 3 4 5; do (setsid sh -c 'trap "" TERM; sleep 1000 & sleep 1000' &) & done
for n in 1 2 3; do setsid sh -c 'kill -STOP $$; sleep 1000' & done
for n in 1 2; do setsid sh -c 'hop() { hop & }; hop' & done
echo armed
"""
LEAST = 20
REAPED = 5
"""Those that only the guest can reap; the others' parents may do it before they are killed."""


def arm(guest: Guest, tail: str, **options) -> int:
    """Start the escapees as one exec; its id, once they are all there."""
    operation_id = guest.raw.start("sh", "-c", ESCAPEES + tail, env=(guest.name,), **options)
    guest.raw.started(operation_id)
    guest.raw.output(operation_id, b"armed\n")
    until(lambda: len(guest.marked()) >= LEAST, "twenty escapees")
    return operation_id


def test_a_kill_leaves_nobody_and_spares_others_of_the_user(guest: Guest) -> None:
    bystander = guest.raw.start("sleep", "1000", env=(b"RINGFENCE_TEST_OTHER=" + guest.name,))
    pid = guest.raw.started(bystander)
    operation_id = arm(guest, "wait")
    guest.raw.send(Ask.KILL, operation_id)
    ending = guest.raw.ending(operation_id)
    assert guest.marked() == []
    assert (ending.status, ending.reason, ending.proof) == (signal.SIGKILL, 2, 1)
    assert ending.killed >= REAPED
    os.kill(guest.host_pid(pid), 0)
    guest.raw.send(Ask.SIGNAL, bystander, struct.pack("<IB", signal.SIGTERM, 0))
    assert guest.raw.ending(bystander).reason == 0


def test_a_timeout_leaves_nobody(guest: Guest) -> None:
    script = ESCAPEES + "sleep 1000; sleep 1000"
    ending = guest.raw.run("sh", "-c", script, env=(guest.name,), timeout=1500, grace=100)
    assert guest.marked() == []
    assert (ending.reason, ending.proof) == (1, 1)
    assert ending.killed >= 1


def test_a_family_outlives_its_exec_until_it_is_killed_by_the_same_id(guest: Guest) -> None:
    operation_id = arm(guest, "exit 3")
    ending = guest.raw.ending(operation_id)
    assert (ending.status, ending.reason, ending.proof) == (3 << 8, 0, 3)
    assert len(guest.marked()) >= LEAST - 1
    guest.raw.send(Ask.KILL, operation_id)
    until(lambda: not guest.marked(), "the family is gone")
    assert guest.raw.ask(Ask.PING, b"x") == b"x"


def test_kill_all_reaches_running_and_ended_execs(guest: Guest) -> None:
    arm(guest, "exit 0")
    running = guest.raw.start("sleep", "1000", env=(guest.name,), who=(0, 0, ()))
    guest.raw.send(Ask.KILL_ALL, 77)
    endings = {}
    while len(endings) < 3:
        op, operation_id, payload = guest.raw.frame()
        if op == Answer.EXIT or operation_id == 77:
            endings[operation_id] = payload
    assert guest.marked() == []
    assert struct.unpack("<I", endings[77])[0] >= REAPED
    assert endings[running][4] == 2


def test_one_kill_all_after_the_other_is_answered_when_all_are_gone(guest: Guest) -> None:
    raw = guest.raw
    frames = b""
    for number in (1001, 1002):
        payload = exec_payload("sleep", "1000", env=(guest.name,))
        frames += HEADER.pack(len(payload) + 5, Ask.EXEC, number - 500) + payload
        frames += HEADER.pack(5, Ask.KILL_ALL, number)
    raw.send_bytes(frames)
    answers = {}
    while len(answers) < 2:
        op, number, payload = raw.frame()
        if number > 1000:
            assert op == Answer.DONE
            answers[number] = struct.unpack("<I", payload)[0]
    assert answers[1001] == answers[1002]
    assert not guest.marked()


def test_kill_all_is_answered_when_a_command_it_meets_fails_to_start(guest: Guest) -> None:
    for _ in range(3):
        failing = guest.raw.start("no-such-program")
        guest.raw.send(Ask.KILL_ALL, 77)
        answers = {}
        while len(answers) < 2:
            op, operation_id, _ = guest.raw.frame()
            if op != Answer.STARTED:
                answers[operation_id] = op
        assert answers[77] == Answer.DONE
        assert answers[failing] in (Answer.FAIL, Answer.EXIT)


def test_the_end_of_the_session_leaves_nobody(guest: Guest) -> None:
    arm(guest, "wait")
    guest.raw.stream.close()
    assert guest.wait() == 0
    assert guest.marked() == []


def test_a_lost_supervisor_is_reported_and_its_family_killed(guest: Guest) -> None:
    operation_id = guest.raw.start("sh", "-c", "setsid sleep 1000 & wait", env=(guest.name,))
    pid = guest.raw.started(operation_id)
    until(lambda: len(guest.marked()) == 2, "both processes")
    status = Path(f"/proc/{guest.host_pid(pid)}/stat").read_bytes()
    os.kill(int(status.rpartition(b")")[2].split()[1]), signal.SIGKILL)
    ending = guest.raw.ending(operation_id)
    assert guest.marked() == []
    assert (ending.status, ending.reason) == (signal.SIGKILL, 5)
    assert guest.raw.run("echo", "on").stdout == b"on\n"


def test_the_family_of_a_root_command_cannot_reach_its_supervisor(guest: Guest) -> None:
    script = "kill -9 $PPID || echo denied; kill -9 1; echo alive; prlimit --pid 1 --nofile=1:1"
    ending = guest.raw.run("sh", "-c", script, who=(0, 0, ()))
    assert ending.stdout == b"denied\nalive\n"
    assert ending.status != 0
    assert guest.raw.run("echo", "on").stdout == b"on\n"


def test_no_signal_but_two_reaches_a_supervisor_through_a_descriptor(guest: Guest) -> None:
    """For root a descriptor sends any signal to any process. SIGKILL and SIGSTOP are its filter's."""
    script = """
import fcntl, os, signal, time
reads, writes = os.pipe()
fcntl.fcntl(reads, fcntl.F_SETOWN, os.getppid())
fcntl.fcntl(reads, fcntl.F_SETFL, os.O_ASYNC)
for number in range(65):
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        fcntl.fcntl(reads, fcntl.F_SETSIG, number)
        os.write(writes, b"x")
time.sleep(0.1)
print(os.getppid())
"""
    ending = guest.raw.run("python3", "-c", script, who=(0, 0, ()))
    assert (ending.status, ending.reason, ending.proof) == (0, 0, 1)
    again = guest.raw.run("sh", "-c", "grep Sig[BI] /proc/self/status; exec echo $PPID")
    assert again.stdout.endswith(b"\n" + ending.stdout)
    for mask in again.stdout.splitlines()[:-1]:
        assert int(mask.split()[1], 16) == 0, "a command is given none of it"


def test_a_command_that_asks_to_be_traced_has_not_ended(guest: Guest) -> None:
    """Its parent is asked, the supervisor, which is told of each of its stops then."""
    script = "import ctypes, os; ctypes.CDLL(None).ptrace(0, 0, 0, 0); os.kill(os.getpid(), 10)"
    ending = guest.raw.run("python3", "-c", script, env=(guest.name,), timeout=1000)
    assert (ending.status, ending.reason, ending.proof) == (signal.SIGKILL, 1, 1)
    assert guest.marked() == []


@pytest.mark.parametrize("flags", [32, 32 | 8])
def test_a_kill_before_the_start_is_not_lost(guest: Guest, flags: int) -> None:
    operation_id = guest.raw.start("sleep", "1000", env=(guest.name,), flags=flags)
    guest.raw.send(Ask.KILL, operation_id)
    assert guest.raw.ending(operation_id).reason == 2
    assert guest.marked() == []


def test_a_stopped_start_cannot_hold_up_the_kill(start_guest: Callable[..., Guest]) -> None:
    guest = start_guest()
    guest.raw.hello()
    spam = guest.raw.start(
        "sh", "-c", "echo armed; while :; do kill -STOP -1; done", who=(1001, 1001, ())
    )
    guest.raw.started(spam)
    guest.raw.output(spam, b"armed\n")
    for _ in range(5):
        operation_id = guest.raw.start("sleep", "1000", env=(guest.name,), who=(1001, 1001, ()))
        guest.raw.send(Ask.KILL, operation_id)
        with contextlib.suppress(OSError):
            assert guest.raw.ending(operation_id).reason in (2, 5)
    assert guest.marked() == []


HELD_BY_A_TRACER = """
import ctypes, time
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1))  # PR_SET_PTRACER, anybody
print("there", flush=True)
time.sleep(1000)
"""
TRACER = """
import ctypes, sys
print(ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0), flush=True)  # PTRACE_SEIZE
sys.stdin.read()
"""


def is_stopped(pid: int) -> bool:
    return "\nState:\tT" in Path(f"/proc/{pid}/status").read_text()


def supervisor_of(guest: Guest, pid: int) -> int:
    status = Path(f"/proc/{guest.host_pid(pid)}/stat").read_bytes()
    return int(status.rpartition(b")")[2].split()[1])


def hold_by_a_tracer(guest: Guest, **options) -> tuple[int, int, int]:
    """An exec that another one of its user keeps from being reaped: both ids, and its supervisor."""
    held = guest.raw.start("python3", "-c", HELD_BY_A_TRACER, **options)
    pid = guest.raw.started(held)
    guest.raw.output(held, b"\n")
    tracer = guest.raw.start("python3", "-c", TRACER, str(pid), flags=32 | 1, **options)
    guest.raw.started(tracer)
    assert guest.raw.output(tracer, b"\n") == b"0\n"
    return held, tracer, supervisor_of(guest, pid)


def lose_a_supervisor_at_work(guest: Guest) -> tuple[int, int, int]:
    """One that kills a family which a tracer keeps, and is killed itself while it has the user's
    processes stopped: a bystander's pid, and the ids of both. FileNotFoundError: all of the user's
    were killed before that, after the 2 s that a supervisor has."""
    bystander = guest.host_pid(guest.raw.started(guest.raw.start("sleep", "1000")))
    held, tracer, supervisor = hold_by_a_tracer(guest, env=(guest.name,))
    guest.raw.send(Ask.KILL, held)
    while True:
        while not is_stopped(bystander):
            pass
        os.kill(supervisor, signal.SIGSTOP)
        until(lambda: is_stopped(supervisor), "the supervisor is stopped, too")
        if is_stopped(bystander):
            break
        os.kill(supervisor, signal.SIGCONT)
    os.kill(supervisor, signal.SIGKILL)
    return bystander, held, tracer


def both_endings(guest: Guest, *ids: int) -> dict[int, bytes]:
    """The EXITs of these, in any order."""
    found: dict[int, bytes] = {}
    while len(found) < len(ids):
        op, operation_id, payload = guest.raw.frame()
        if op == Answer.EXIT and operation_id in ids:
            found[operation_id] = payload
    return found


TRIES = 10
"""What is to be seen in 2 s is missed on a busy machine."""


def test_who_was_stopped_for_a_kill_goes_on_when_its_supervisor_is_lost(
    start_guest: Callable[..., Guest],
) -> None:
    """The others of the user are stopped while a stubborn family is walked."""
    for _ in range(TRIES):
        guest = start_guest("--stream")
        guest.raw.hello()
        with contextlib.suppress(FileNotFoundError):
            bystander, held, tracer = lose_a_supervisor_at_work(guest)
            guest.raw.send(Ask.STDIN, tracer)
            ending = both_endings(guest, held, tracer)[held]
            stopped = is_stopped(bystander)
            break
    assert ending[5] == 1, "proven"
    assert not stopped


def test_a_lost_family_that_its_user_keeps_from_ending_takes_the_user_along(guest: Guest) -> None:
    held, tracer, supervisor = hold_by_a_tracer(guest, env=(guest.name,))
    os.kill(supervisor, signal.SIGKILL)
    assert both_endings(guest, held, tracer)[tracer][4] == 4, "collateral"
    assert guest.marked() == []


@contextlib.contextmanager
def held_from_outside(pid: int) -> Iterator[None]:
    """What no kill inside ends: its tracer, which does not wait for it, is no process of the guest's."""
    tracer = subprocess.Popen(
        [sys.executable, "-c", TRACER, str(pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert tracer.stdout is not None
        assert tracer.stdout.readline() == b"0\n"
        yield
    finally:
        tracer.communicate()


def test_a_user_is_killed_for_a_lost_family_beside_one_that_nothing_ends(guest: Guest) -> None:
    """However long the guest has been after the first, the second has its own time."""
    other = Cred(1001, 1001)
    first = guest.raw.started(guest.raw.start("sleep", "1000"))
    bystander = guest.raw.start("sleep", "1000")
    guest.raw.started(bystander)
    with held_from_outside(guest.host_pid(first)):
        os.kill(supervisor_of(guest, first), signal.SIGKILL)
        assert both_endings(guest, bystander)[bystander][4] == 4, "collateral"
        _, tracer, supervisor = hold_by_a_tracer(guest, who=other)
        os.kill(supervisor, signal.SIGKILL)
        assert both_endings(guest, tracer)[tracer][4] == 4, "collateral"
