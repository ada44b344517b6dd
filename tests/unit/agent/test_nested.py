"""A supervisor with a pid namespace serves again while nobody is left there, and as it was made."""

import errno
import os
import platform
import signal
import struct
import time
from pathlib import Path

import pytest

from ringfence.guest.protocol import Ask
from ringfence.policy.seccomp.bpf import bpf

from .raw import until
from .wrapped import WHO, Wrapped

LOST, FIRST = 5, 2
LEFT = "sleep 1000 <&- >&- 2>&- & readlink /proc/self/ns/pid"
RACES, STEPS, STEP_NS = 150, 50, 100_000
KEYCTL, IOPRIO_SET = {"x86_64": (250, 251), "aarch64": (219, 30)}[platform.machine()]
SESSION = f"""
import ctypes
call = lambda *args: ctypes.CDLL(None).syscall({KEYCTL}, *args)
print(call(0, -3, 0))
"""
"""What the session keyring is."""
NEW_SESSION = "import sys; sys.exit(0 if call(1, None) > 0 and call(18) == 0 else 1)"
"""A new one, and the parent's, too."""
LIMITS = "prlimit --raw --noheadings --output RESOURCE,SOFT,HARD"
RUNS = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def io(pid):
    if libc.syscall({IOPRIO_SET}, 1, pid, 3 << 13):
        raise OSError(ctypes.get_errno(), "")
for change in (
    lambda pid: os.setpriority(os.PRIO_PROCESS, pid, 19),
    lambda pid: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)),
    lambda pid: os.sched_setaffinity(pid, os.sched_getaffinity(0)),
    io,
):
    change(os.getpid())
    try:
        change(1)
        print(0)
    except OSError as error:
        print(error.errno)
"""
CHANGES = {
    "files": ["--nofile=0:0"],
    "file size": ["--fsize=0"],
    "memory": ["--as=1000000"],
    "processes": ["--nproc=1"],
    "processor time": ["--cpu=1"],
    "signals": ["--sigpending=0"],
}


def refusing(*names: str) -> bytes:
    """A program that answers these calls with EXDEV."""
    calls = [{"names": [*names], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV}]
    return bpf({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls}, platform.machine())


def is_new(guest: Wrapped) -> bool:
    """Whether the next command is a namespace's first. Numbers of namespaces come again."""
    return guest.run("true").pid == FIRST


def filters(guest: Wrapped) -> int:
    """How many were installed in a command."""
    return int(guest.sh("sed -n 's/^Seccomp_filters://p' /proc/self/status"))


def inner(namespace: str) -> int:
    """The host's pid of a namespace's first process."""
    return min(
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _namespace_of(entry) == namespace
    )


def _namespace_of(process: Path) -> str:
    try:
        return str((process / "ns/pid").readlink())
    except OSError:
        return ""


def supervisors(guest: Wrapped) -> list[str]:
    """The agent's children."""
    agent = guest.host_pid(1)
    return Path(f"/proc/{agent}/task/{agent}/children").read_text().split()


def test_commands_in_a_row_share_a_namespace(wrapped: Wrapped) -> None:
    endings = [wrapped.run("readlink", "/proc/self/ns/pid") for _ in range(10)]
    assert len({ending.stdout for ending in endings}) == 1
    assert [ending.pid for ending in endings] == list(range(2, 12))
    assert {ending.proof for ending in endings} == {1}


def test_one_who_is_left_has_the_namespace_to_itself(wrapped: Wrapped) -> None:
    seen = [wrapped.sh(LEFT) for _ in range(3)]
    assert len({*seen, wrapped.namespace()}) == 4


def test_commands_at_once_have_one_each(wrapped: Wrapped) -> None:
    ids = [wrapped.raw.start("sleep", "1000", who=WHO, env=(wrapped.name,)) for _ in range(6)]
    until(lambda: len(wrapped.marked()) == 6, "all of them run")
    assert len({_namespace_of(Path(f"/proc/{pid}")) for pid in wrapped.marked()}) == 6
    for operation_id in ids:
        wrapped.raw.send(Ask.SIGNAL, operation_id, struct.pack("<IB", 15, 0))
        assert wrapped.raw.ending(operation_id).status == 15
    assert not is_new(wrapped)


@pytest.mark.parametrize("what", CHANGES)
def test_what_a_command_changes_in_its_supervisor_is_no_other_commands(
    wrapped: Wrapped, what: str
) -> None:
    before = wrapped.sh(LIMITS)
    assert not is_new(wrapped)
    changed = wrapped.run("prlimit", "--pid", "1", *CHANGES[what])
    assert changed.status == 0, changed.stderr
    assert is_new(wrapped)
    assert wrapped.sh(LIMITS) == before


def test_a_command_cannot_change_when_and_where_its_supervisor_runs(wrapped: Wrapped) -> None:
    """It has a capability that they do not: nothing is left to be found afterwards."""
    tried = wrapped.run("python3", "-c", RUNS)
    assert tried.stdout.split() == [str(errno.EPERM).encode()] * 4, tried.stderr


def test_a_signal_that_waits_for_the_supervisor_ends_it(wrapped: Wrapped) -> None:
    """Each takes of what the user may have waiting."""
    assert wrapped.sh("kill -34 1; kill -34 1; grep SigQ /proc/self/status").split()[1][0] != "0"
    assert is_new(wrapped)
    assert wrapped.sh("grep SigQ /proc/self/status").split()[1].startswith("0/")


def test_a_sigchld_of_a_command_is_none(wrapped: Wrapped) -> None:
    assert wrapped.run("sh", "-c", "kill -CHLD 1; kill -CHLD 1").status == 0
    assert not is_new(wrapped)


@pytest.mark.parametrize("filtered", [False, True])
def test_a_command_gives_no_other_its_keyring(wrapped: Wrapped, filtered: bool) -> None:
    if filtered:
        wrapped.raw.ask(Ask.FILTER, refusing("mkdir"))
    before = wrapped.run("python3", "-c", SESSION).stdout
    if int(before) < 0:
        pytest.skip("this kernel has no keyrings")
    given = wrapped.run("python3", "-c", SESSION + NEW_SESSION)
    assert given.status == 0, given.stderr
    assert wrapped.run("python3", "-c", SESSION).stdout == before


def test_a_filter_that_keeps_keyrings_is_installed_once(wrapped: Wrapped) -> None:
    wrapped.raw.ask(Ask.FILTER, refusing("keyctl"))
    seen = {(filters(wrapped), wrapped.namespace()) for _ in range(4)}
    assert len(seen) == 1
    first = inner(wrapped.namespace())
    assert "Seccomp:\t2" in Path(f"/proc/{first}/status").read_text()


def test_without_a_call_that_a_look_needs_it_still_serves(wrapped: Wrapped) -> None:
    """Such a filter binds the commands alone."""
    wrapped.raw.ask(Ask.FILTER, refusing("keyctl", "rt_sigpending", "ioprio_get"))
    first = inner(wrapped.namespace())
    assert not is_new(wrapped)
    assert "Seccomp:\t0" in Path(f"/proc/{first}/status").read_text()


@pytest.mark.parametrize(
    ("op", "payload"),
    [
        (Ask.SIGNAL, struct.pack("<IB", 9, 0)),
        (Ask.SIGNAL, struct.pack("<IB", 9, 1)),
        (Ask.KILL, b""),
    ],
)
def test_what_comes_at_the_end_of_a_command_spares_the_next(
    wrapped: Wrapped, op: int, payload: bytes
) -> None:
    endings = set()
    for turn in range(RACES):
        operation_id = wrapped.raw.start("sh", "-c", "exit 3", who=WHO)
        due = time.perf_counter_ns() + turn % STEPS * STEP_NS
        while time.perf_counter_ns() < due:
            pass
        wrapped.raw.send(op, operation_id, payload)
        ending = wrapped.raw.ending(operation_id)
        assert (ending.status in (9, 3 << 8), ending.proof) == (True, 1)
        assert ending.pid >= FIRST
        endings.add(ending.status)
        after = wrapped.run("sh", "-c", "exit 7")
        assert (after.status, after.reason, after.proof) == (7 << 8, 0, 1)
    assert endings == {9, 3 << 8}


@pytest.mark.parametrize("grace", [0, 50])
def test_a_timeout_at_the_end_of_a_command_spares_the_next(wrapped: Wrapped, grace: int) -> None:
    for turn in range(RACES):
        done = wrapped.run(
            "sh", "-c", "read a < /dev/null; exit 3", timeout=1 + turn % 4, grace=grace
        )
        assert (done.status, done.reason) in ((3 << 8, 0), (3 << 8, grace > 0), (9, 1), (15, 1))
        after = wrapped.run("sh", "-c", "exit 7")
        assert (after.status, after.reason, after.proof) == (7 << 8, 0, 1)


def test_a_kill_of_a_later_command_tells_of_that_one_alone(wrapped: Wrapped) -> None:
    before = wrapped.run("sh", "-c", "exit 3")
    killed = wrapped.raw.start("sleep", "1000", who=WHO)
    pid = wrapped.raw.started(killed)
    wrapped.raw.send(Ask.KILL, killed)
    ending = wrapped.raw.ending(killed)
    assert pid == before.pid + 1
    assert (ending.status, ending.reason, ending.proof, ending.killed) == (9, 2, 1, 1)


@pytest.mark.parametrize("which", ["outer", "inner"])
def test_a_supervisor_that_is_lost_between_two_commands_is_not_missed(
    wrapped: Wrapped, which: str
) -> None:
    namespace = wrapped.namespace()
    first = inner(namespace)
    outer = int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(outer if which == "outer" else first, signal.SIGKILL)
    until(lambda: namespace not in _namespaces(), "the namespace is gone")
    until(lambda: str(outer) not in supervisors(wrapped), "the agent knows")
    assert is_new(wrapped)


def _namespaces() -> set[str]:
    return {_namespace_of(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}


def test_a_supervisor_that_is_lost_takes_a_later_command_along(wrapped: Wrapped) -> None:
    namespace = wrapped.namespace()
    command = wrapped.raw.start("sleep", "1000", who=WHO, env=(wrapped.name,))
    wrapped.raw.started(command)
    os.kill(inner(namespace), signal.SIGKILL)
    ending = wrapped.raw.ending(command)
    assert (ending.status, ending.reason) == (9, LOST)
    assert wrapped.marked() == []
    assert wrapped.run("sh", "-c", "exit 7").status == 7 << 8


def test_a_command_after_a_terminal_has_none(wrapped: Wrapped) -> None:
    assert b"24 80" in wrapped.run("stty", "size", flags=32 | 2).stdout
    assert wrapped.run("sh", "-c", ": < /dev/tty").status != 0
