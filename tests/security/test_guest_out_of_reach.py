"""Rows 14, 24 and 27 from the other side: a command cannot end, trace, read or replace its guest."""

from pathlib import Path

import pytest

import ringfence

from .conftest import (
    ALL,
    BOTH,
    BUBBLEWRAP,
    DOCKER,
    GVISOR,
    PROCESS,
    begun,
    keywords,
    needs_users,
    python,
    sh,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@BOTH
async def test_no_other_process_can_be_traced_or_read(box: ringfence.Sandbox) -> None:
    """Not the first one, not a supervisor: by ptrace, by /proc, by their memory."""
    script = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
found = []
for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
    if pid == os.getpid():
        continue
    if libc.ptrace(16, pid, 0, 0) == 0:
        found.append(f"attached to {pid}")
    for name in ("mem", "environ", "maps", "fd", "root", "cwd", "auxv", "syscall", "stack", "map_files"):
        path = f"/proc/{pid}/{name}"
        try:
            if name in ("root", "cwd", "fd", "map_files"):
                if os.listdir(path) and pid != 1:
                    found.append(path)
                elif name == "fd":
                    os.readlink(path + "/0")
                    found.append(path)
            elif open(path, "rb").read(1):
                found.append(path)
        except OSError:
            pass
print(found)
"""
    assert await python(box, script) == "[]\n"


SEIZE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
taken = ctypes.create_string_buffer(8)
here, there = Part(ctypes.addressof(taken), 8), Part(0x400000, 8)
if sys.argv[1:]:
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
child = os.fork()
if child == 0:
    import time
    time.sleep(60)
for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
    mine = pid in (os.getpid(), child)
    for work in (lambda: libc.ptrace(0x4206, pid, 0, 0) == 0,
                 lambda: libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) > 0,
                 lambda: open(f"/proc/{pid}/mem", "rb"),
                 lambda: os.readlink(f"/proc/{pid}/fd/0")):
        try:
            if work():
                print("own" if mine else f"reached {pid}")
        except OSError:
            pass
os.kill(child, 9)
"""


@pytest.mark.parametrize("kind", [DOCKER, PROCESS, BUBBLEWRAP])
async def test_where_tracing_is_allowed_the_guest_is_not_traced(state: Path, kind: str) -> None:
    """permissive's filter lets a command trace its own; neither an ordinary user nor, on Docker, root, nor root
    that has become the guest's user reaches the guest or a supervisor by it."""
    users: list[tuple[str, list[str]]] = [("1000", [])]
    security = {}
    if kind == "docker":
        security["capabilities"] = ["SETUID", "SETGID", "DAC_OVERRIDE", "CHOWN", "FOWNER"]
    options = {**keywords(kind), "profile": "permissive"}
    options["security"] = {**options.get("security", {}), **security}
    with begun(kind):
        async with ringfence.open(**options) as sandbox:
            needs_users(sandbox)
            guest = (await sh(sandbox, "stat -c %u /proc/1")).strip()
            assert guest not in ("0", "1000")
            if security:
                users += [("root", []), ("root", [guest])]
            for user, args in users:
                result = await sandbox.exec(["python3", "-c", SEIZE, *args], user=user)
                assert result.ok, result.stderr.decode()
                seen = result.stdout.decode().split("\n")
                assert [line for line in seen if line not in ("own", "")] == []
                assert seen.count("own") >= (0 if args else 3)


@pytest.mark.parametrize("kind", [GVISOR], scope="module")
async def test_under_gvisor_what_is_seen_of_the_guest_is_not_enough(box: ringfence.Sandbox) -> None:
    """Its /proc shows more of other processes; the guest's link, its memory and its life stay out
    of reach, and its environment says nothing of the host."""
    script = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
for name in os.listdir("/proc/1/fd"):
    for mode in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        try:
            where = os.readlink(f"/proc/1/fd/{name}")
            os.close(os.open(f"/proc/1/fd/{name}", mode | os.O_NONBLOCK))
            if where.startswith(("host", "socket")):
                print("opened", where)
        except OSError:
            pass
for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
    if pid in (os.getpid(), os.getppid()) and pid != 1:
        continue
    for work in (lambda: open(f"/proc/{pid}/mem", "rb"), lambda: os.kill(pid, signal.SIGKILL),
                 lambda: 1 / (libc.ptrace(16, pid, 0, 0) == 0)):
        try:
            work()
            print("reached", pid)
        except (OSError, ZeroDivisionError):
            pass
"""
    assert await python(box, script) == ""
    assert "hunter2" not in await sh(box, "cat /proc/1/environ")


@BOTH
async def test_signals_and_limits_do_not_reach_the_guest(box: ringfence.Sandbox) -> None:
    """kill, by number and by group, prlimit, priorities, affinity: of the first process and of every
    one that is not the command's own."""
    needs_users(box)
    script = """
import os, resource, signal
for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
    if pid in (os.getpid(), os.getppid()) and pid != 1:
        continue
    for name, work in {
        "kill": lambda: os.kill(pid, signal.SIGKILL),
        "stop": lambda: os.kill(pid, signal.SIGSTOP),
        "group": lambda: pid > 1 and os.killpg(pid, signal.SIGKILL),
        "limit": lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, 1)),
        "nice": lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
        "cores": lambda: os.sched_setaffinity(pid, {0}),
        "oom": lambda: open(f"/proc/{pid}/oom_score_adj", "w").write("1000"),
    }.items():
        try:
            if work() is not False:
                print(pid, name)
        except OSError:
            pass
"""
    seen = await python(box, script)
    assert [line for line in seen.splitlines() if line.startswith("1 ")] == []
    assert (await box.exec(["echo", "x"])).stdout == b"x\n"
    assert await box.files.exists("/tmp")


@ALL
async def test_a_kill_of_everything_leaves_the_sandbox(box: ringfence.Sandbox) -> None:
    """`kill -9 -1` inside ends the caller's own processes at most."""
    for _ in range(3):
        await box.exec(shell="kill -9 -1; kill -STOP -1; exit 3", timeout=30)
        assert (await box.exec(["echo", "x"])).stdout == b"x\n"


@BOTH
async def test_the_guests_uid_cannot_be_taken(box: ringfence.Sandbox) -> None:
    """Its number is known to a command; no exec is run as it, and no call becomes it."""
    needs_users(box)
    uid = (await sh(box, "stat -c %u /proc/1")).strip()
    if uid != "0":
        with pytest.raises(ringfence.SandboxError):
            await box.exec(["id", "-u"], user=int(uid))
    script = f"""
import os
for work in (os.setuid, os.setgid, lambda n: os.setgroups([n]), lambda n: os.setresuid(n, n, n)):
    for number in (0, {uid}):
        try:
            work(number)
            print("became", number)
        except OSError:
            pass
"""
    assert await python(box, script) == ""


@pytest.mark.parametrize("kind", [DOCKER, PROCESS])
async def test_a_second_dialler_is_not_taken_for_the_guest(state: Path, kind: str) -> None:
    """A command that dials the host's door all the time gets nothing, while sessions come and go."""
    script = """
import socket, time
print("ready", flush=True)
while True:
    one = socket.socket(socket.AF_UNIX)
    try:
        one.connect("/.ringfence/host.sock")
        one.sendall(b"\\0" * 64)
        one.settimeout(2)
        got = one.recv(100)
        if got:
            open("/tmp/got", "wb").write(got)
    except OSError:
        time.sleep(0.001)
    one.close()
"""
    options = keywords(kind)
    async with ringfence.open(**options, detached=True, lifetime=600) as sandbox:
        name = sandbox.id
        process = await sandbox.spawn(["python3", "-c", script], hold=True, timeout=600)
        assert await process.stdout.read(6) == b"ready\n"
    try:
        for _ in range(4):
            async with ringfence.open(id=name) as again:
                assert (await again.exec(["echo", "x"])).stdout == b"x\n"
                assert not await again.files.exists("/tmp/got")
    finally:
        await ringfence.delete_sandbox(name)
