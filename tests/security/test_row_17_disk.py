"""Row 17: what a command writes to disk is bounded; nothing but what is its own can be written."""

from pathlib import Path

import pytest

import ringfence
from ringfence import Repository

from ..conftest import require_root
from .conftest import BOTH, keywords, needs_users, python

pytestmark = [pytest.mark.asyncio(loop_scope="module"), BOTH]

MIB = 2**20


async def test_only_the_memory_file_systems_can_be_written(box: ringfence.Sandbox) -> None:
    """Every other directory of the sandbox refuses a new file."""
    script = """
import os
seen = set()
for top in ("/", "/proc", "/sys", "/dev"):
    for place, directories, files in os.walk(top):
        depth = place.count("/")
        if depth > 4:
            directories.clear()
        if place.startswith(("/proc/", "/sys/")) and depth > 2:
            directories.clear()
        try:
            path = os.path.join(place, "x-planted")
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
            os.unlink(path)
            seen.add("/".join(place.split("/")[:3]))
        except OSError:
            pass
print(sorted(seen))
"""
    found = await python(box, script, timeout=120)
    allowed = {"/tmp", "/run", "/dev/shm", "/dev/mqueue", "/var/tmp", "/run/lock", "/run/user"}
    places = {name.strip("' ") for name in found.strip("[]\n").split(",") if name}
    assert {"/tmp"} <= places <= allowed


async def test_files_have_a_number_that_they_do_not_exceed(box: ringfence.Sandbox) -> None:
    """Empty ones cost the kernel's memory: each memory file system takes so many, and no more."""
    needs_users(box)
    script = """
import os
places = ("/tmp", "/run", "/dev/shm")
print(max(os.statvfs(place).f_files for place in places) <= 65536)
left = os.statvfs("/run").f_ffree
try:
    for number in range(left + 1):
        open(f"/run/x{number}", "w").close()
except OSError as error:
    print(error.errno == 28, number <= left)
"""
    assert await python(box, script, timeout=120) == "True\nTrue True\n"


async def test_a_file_has_a_size_that_it_does_not_exceed(box: ringfence.Sandbox) -> None:
    """Not as a hole either."""
    assert not (await box.exec(shell="truncate -s 2G /tmp/y")).ok
    assert (await box.exec(shell="truncate -s 1G /tmp/y")).ok


async def test_a_workspace_has_a_size(kind: str, state: Path, mountable: Path) -> None:
    """Writing beyond it is an error inside, and the host's disk is not where it ends."""
    require_root()
    (mountable / "file").write_text("x")
    repository = Repository(path=str(mountable), size=32 * MIB)
    async with ringfence.open(**keywords(kind), repository=repository) as sandbox:
        full = await sandbox.exec(shell="head -c 200M /dev/zero > full; stat -c %s full")
        assert b"No space left" in full.stderr
        assert int(full.stdout) <= 36 * MIB
        assert (await sandbox.exec(shell="rm full; echo x > small && cat small")).stdout == b"x\n"
    assert sorted(p.name for p in mountable.iterdir()) == ["file"]
