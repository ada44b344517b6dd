"""Row 10: what is no regular file, is sparse or has no end cannot hang a read or fill the client."""

import pytest

import ringfence
from ringfence.errors import SandboxError

from .conftest import ALL, resident

pytestmark = [pytest.mark.asyncio(loop_scope="module"), ALL]

MIB = 2**20


@pytest.mark.parametrize("make", [
    "mkfifo /tmp/x", "ln -s /dev/zero /tmp/x", "ln -s /dev/stdin /tmp/x", "mkdir /tmp/x",
    "ln -s x /tmp/x", "ln -s /proc/kmsg /tmp/x", "ln -s /dev/ptmx /tmp/x",
    "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/tmp/x\")'",
])  # fmt: skip
async def test_what_is_no_file_is_an_error_at_once(box: ringfence.Sandbox, make: str) -> None:
    """For a read, a stream, and a copy alike."""
    assert (await box.exec(shell=make)).ok
    for work in (box.files.read("/tmp/x"), box.files.copy("/tmp/x", "/tmp/y")):
        with pytest.raises(SandboxError):
            await work
    with pytest.raises(SandboxError):
        async with box.files.open("/tmp/x") as reader:
            await reader.read(1)


async def test_a_sparse_file_is_bounded_by_what_is_asked_for(box: ringfence.Sandbox) -> None:
    assert (await box.exec(shell="truncate -s 900M /tmp/x")).ok
    before = resident()
    with pytest.raises(ringfence.FileTooLargeError):
        await box.files.read("/tmp/x")
    assert await box.files.read("/tmp/x", offset=2**29, length=3) == b"\0\0\0"
    assert resident() - before < 64 * MIB


async def test_a_file_of_the_kernel_without_a_size_is_bounded_too(box: ringfence.Sandbox) -> None:
    """Its length is said to be 0, whatever comes."""
    data = await box.files.read("/proc/self/status", max_bytes=100_000)
    assert data.startswith(b"Name:")
    with pytest.raises(ringfence.FileTooLargeError):
        await box.files.read("/proc/self/status", max_bytes=10)


async def test_a_name_that_is_exchanged_all_the_time_gives_a_file_or_an_error(
    box: ringfence.Sandbox,
) -> None:
    """File, FIFO and device change places under the reader; no read blocks on one."""
    script = """
echo f > /tmp/f; mkfifo /tmp/p; ln -s /dev/zero /tmp/z; echo ready
while :; do for n in f p z; do ln $n x.$n 2>/dev/null || cp -P $n x.$n; mv -fT x.$n x; done; done
"""
    async with box.spawn(shell=f"cd /tmp; {script}", timeout=60) as process:
        assert await process.stdout.read(6) == b"ready\n"
        for _ in range(60):
            try:
                assert await box.files.read("/tmp/x") == b"f\n"
            except SandboxError:
                continue
