"""Floods and bombs: each ends as a result, the sandbox goes on, the host does not grow."""

import resource

import pytest

import ringfence
from ringfence.errors import SandboxError
from ringfence.sandbox.sandbox import Sandbox
from ringfence.spec import Reason

pytestmark = pytest.mark.docker

MIB = 2**20


async def alive(sandbox: Sandbox) -> bool:
    return (await sandbox.exec(["echo", "alive"], timeout=30)).stdout == b"alive\n"


async def test_a_flood_of_output_is_counted_and_dropped(strict: Sandbox) -> None:
    """256 MiB come out, 1 MiB is kept, and this process stays small."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = await strict.exec(["head", "-c", str(256 * MIB), "/dev/zero"], timeout=120)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(result.stdout) == MIB
    assert result.stdout_total == 256 * MIB
    assert result.stdout_truncated
    assert grown * 1024 < 64 * MIB


async def test_a_fork_bomb_stays_in_its_limit(strict: Sandbox) -> None:
    result = await strict.exec(
        shell="bomb() { bomb | bomb & }; bomb; sleep 600", timeout=2.0, grace=0.0
    )
    assert result.reason is Reason.TIMEOUT
    await strict.kill_all()
    assert await alive(strict)


async def test_a_memory_bomb_is_told_from_an_exit_of_137(strict: Sandbox) -> None:
    bomb = await strict.exec(["python3", "-c", "x = bytearray(2**30)[::4096]; print(len(x))"])
    if bomb.reason is not Reason.OOM_KILLED:
        bomb = await strict.exec(["python3", "-c", "x = b'x' * 2**30"])
    assert bomb.reason is Reason.OOM_KILLED
    feigned = await strict.exec(shell="exit 137")
    assert (feigned.reason, feigned.exit_code) == (Reason.EXITED, 137)
    feigned = await strict.exec(shell="exit 124")
    assert (feigned.reason, feigned.exit_code) == (Reason.EXITED, 124)
    assert await alive(strict)


async def test_a_full_tmpfs_is_an_error_inside_and_can_be_emptied(strict: Sandbox) -> None:
    full = await strict.exec(shell="head -c 1G /dev/zero > /tmp/full; stat -c %s /tmp/full")
    assert b"No space left" in full.stderr
    assert int(full.stdout) <= 64 * MIB
    await strict.files.remove("/tmp/full")
    await strict.files.write("/tmp/again", b"x" * MIB)
    assert await alive(strict)


async def test_many_small_files_run_into_a_limit_too(strict: Sandbox) -> None:
    """A tmpfs without a limit of inodes fills the kernel's memory with names."""
    script = """
import os
made = 0
try:
    for made in range(10**6):
        os.close(os.open(f"/run/{made}", os.O_CREAT | os.O_WRONLY))
except OSError as error:
    print(made, error.errno)
"""
    made, number = (await strict.exec(["python3", "-c", script], timeout=120)).stdout.split()
    assert int(number) == 28
    assert int(made) < 10**5


async def test_a_child_that_holds_the_output_does_not_hold_the_result(strict: Sandbox) -> None:
    """The result comes when the command ends, not when the last writer closes."""
    result = await strict.exec(shell="sleep 600 & echo done", timeout=300)
    assert (result.stdout, result.reason) == (b"done\n", Reason.EXITED)
    assert result.duration < 60


async def test_what_ignores_signals_is_gone_after_a_timeout(strict: Sandbox) -> None:
    """Ignored TERM, a session of its own, a stopped process: all of the family."""
    script = """
trap '' TERM HUP INT
setsid sh -c 'trap "" TERM; while :; do sleep 1731; done' &
(sleep 1732 & kill -STOP $!) &
sleep 1733
"""
    result = await strict.exec(shell=script, timeout=1.0, grace=0.2)
    assert result.reason is Reason.TIMEOUT
    left = await strict.exec(
        shell="cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 17[3]'"
    )
    assert left.stdout.strip() == b"0"


async def test_kill_of_everything_reaches_only_ones_own(strict: Sandbox) -> None:
    """`kill -9 -1` inside ends the caller's own processes; guest and supervisors live."""
    await strict.exec(shell="kill -9 -1; sleep 5", timeout=30)
    assert await alive(strict)


async def test_orphans_are_reaped(strict: Sandbox) -> None:
    """Zombies would count against the limit of processes for ever."""
    script = "i=0; while [ $i -lt 600 ]; do (true & exec true); i=$((i+1)); done; echo made"
    assert (await strict.exec(shell=script, timeout=120)).stdout == b"made\n"
    zombies = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l"
    assert int((await strict.exec(shell=zombies)).stdout) < 20
    assert await alive(strict)


@pytest.mark.parametrize("make", [
    "mkfifo /tmp/x", "ln -s /dev/zero /tmp/x", "ln -s /proc/kmsg /tmp/x", "mkdir /tmp/x",
    "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/tmp/x\")'",
])  # fmt: skip
async def test_what_is_no_file_cannot_hang_a_read(strict: Sandbox, make: str) -> None:
    assert (await strict.exec(shell=make)).ok
    with pytest.raises(SandboxError):
        await strict.files.read("/tmp/x")
    assert await alive(strict)


async def test_a_sparse_file_is_bounded_by_what_is_asked_for(strict: Sandbox) -> None:
    """The file may be larger than the limit of a file's size allows; a read is not."""
    assert (await strict.exec(shell="truncate -s 900M /tmp/x")).ok
    with pytest.raises(ringfence.FileTooLargeError):
        await strict.files.read("/tmp/x")
    too_large = await strict.exec(shell="truncate -s 2G /tmp/y")
    assert not too_large.ok


async def test_names_with_newlines_are_names(strict: Sandbox) -> None:
    await strict.files.write("/tmp/a\nb", b"1")
    await strict.files.write("/tmp/-rf", b"2")
    listing = await strict.files.list("/tmp")
    assert sorted(listing.names) == ["-rf", "a\nb"]
