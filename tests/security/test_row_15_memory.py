"""Rows 15 and 16: memory ends with the command that took it, and is told from a feigned 137."""

from pathlib import Path

import pytest

import ringfence
from ringfence.spec import Reason

from ..conftest import require_cgroups
from .conftest import BOTH, keywords, needs_limits, python, sh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), BOTH]

MIB = 2**20


async def test_a_memory_bomb_is_told_as_such(box: ringfence.Sandbox) -> None:
    """By the kernel's counter; the sandbox and its guest live on."""
    needs_limits(box)
    bomb = await box.exec(["python3", "-c", "x = b'x' * 2**30"], timeout=60)
    assert bomb.reason is Reason.OOM_KILLED
    assert bomb.usage.oom_kills


async def test_a_child_that_is_killed_for_memory_does_not_disguise_its_parent(
    box: ringfence.Sandbox,
) -> None:
    """The main command's own end is what is told; the kill is counted."""
    needs_limits(box)
    line = "python3 -c \"x = b'x' * 2**30\"; echo $?; exit 3"
    result = await box.exec(shell=line, timeout=60)
    assert result.stdout == b"137\n"
    assert (result.exit_code, result.reason) in ((3, Reason.EXITED), (3, Reason.OOM_KILLED))
    assert result.usage.oom_kills


@pytest.mark.parametrize("place", ["/tmp", "/run", "/dev/shm"])
async def test_every_tmpfs_has_a_size_and_is_memory_of_the_sandbox(
    box: ringfence.Sandbox, place: str
) -> None:
    """Filling it is an error inside; files of the host's API fit again once it is emptied."""
    line = f"head -c 600M /dev/zero > {place}/full; stat -c %s {place}/full"
    full = await box.exec(shell=line, timeout=60)
    assert b"No space left" in full.stderr
    assert int(full.stdout) <= 64 * MIB
    with pytest.raises(ringfence.SandboxError):
        await box.files.write(f"{place}/more", b"x" * MIB)
    await box.files.remove(f"{place}/full")
    await box.files.write(f"{place}/again", b"x" * MIB)
    await box.files.remove(f"{place}/again")


async def test_many_small_files_run_into_a_limit_too(kind: str, state: Path) -> None:
    """Of inodes, or of the sandbox's memory: names never fill the host's."""
    if kind == "process":
        require_cgroups()
    script = """
import os
for made in range(10**6):
    os.close(os.open(f"/run/{made}", os.O_CREAT | os.O_WRONLY))
"""
    limits = {"memory": 64 * MIB, "tmp": MIB, "shm": MIB, "run": 8 * MIB}
    async with ringfence.open(**keywords(kind), limits=limits) as sandbox:
        result = await sandbox.exec(["python3", "-c", script], timeout=120)
        assert result.reason is Reason.OOM_KILLED or b"No space left" in result.stderr
        await sandbox.exec(shell="find /run -maxdepth 1 -type f -delete", timeout=60)
        assert (await sandbox.exec(["echo", "alive"])).stdout == b"alive\n"


async def test_memory_that_is_not_a_process_counts(box: ringfence.Sandbox) -> None:
    """memfd, shared mappings and pipes are the sandbox's own."""
    needs_limits(box)
    script = """
import os
held = []
try:
    for _ in range(16):
        fd = os.memfd_create("x")
        held.append(fd)
        for _ in range(64):
            os.write(fd, bytes(2**20))
except OSError:
    pass
print(sum(os.fstat(fd).st_size for fd in held))
"""
    result = await box.exec(["python3", "-c", script], timeout=60)
    assert result.reason is Reason.OOM_KILLED or int(result.stdout) < 512 * MIB
    assert await python(box, "print('x')") == "x\n"
    assert await sh(box, "echo $((1+1))") == "2\n"


_BUFFERS = """
import socket

def used():
    lines = open("/proc/net/sockstat").read().splitlines()
    return sum(int(line.split(" mem ")[1]) for line in lines if " mem " in line and line[0] in "TU")

def streams():
    listener = socket.create_server(("127.0.0.1", 0))
    sender = socket.create_connection(listener.getsockname())
    return sender, [listener, sender, listener.accept()[0]]

def datagrams():
    receiver, sender = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
    receiver.bind(("127.0.0.1", 0))
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sender.connect(receiver.getsockname())
    return sender, [receiver, sender]

before, held = used(), []
for _ in range(60):
    sender, sockets = KIND()
    held += sockets
    sender.setblocking(False)
    try:
        for _ in range(200):
            sender.send(bytes(50_000))
    except OSError:
        pass
print((used() - before) * 4096)
"""


@pytest.mark.parametrize("sockets", ["streams", "datagrams"])
async def test_what_sockets_buffer_is_no_memory_beside_the_limit(
    kind: str, sockets: str, state: Path
) -> None:
    """Unread data of sixty sockets on the loopback; all that the host has is counted, so some of
    it may be others'."""
    if kind == "process":
        require_cgroups()
    limits = {"memory": 64 * MIB, "tmp": MIB, "shm": MIB, "run": MIB}
    async with ringfence.open(**keywords(kind), limits=limits) as sandbox:
        script = _BUFFERS.replace("KIND", sockets)
        result = await sandbox.exec(["python3", "-c", script], timeout=60)
    assert result.reason is Reason.OOM_KILLED or int(result.stdout) < 80 * MIB, result
