"""Row 5, CVE-2022-0492 and its like: nothing of the kernel's trees can be written from inside."""

from pathlib import Path

import pytest

import ringfence

from .conftest import BOTH, python, sh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), BOTH]

WALK = """
import os, stat
found = []
def look(path):
    try:
        if stat.S_ISREG(os.lstat(path).st_mode) and os.access(path, os.W_OK):
            os.close(os.open(path, os.O_WRONLY))
            found.append(path)
    except OSError:
        pass
for top in ("/sys", "/proc"):
    for place, directories, files in os.walk(top):
        if place == "/proc":
            directories[:] = [name for name in directories if not name.isdigit()
                              and name not in ("self", "thread-self")]
        if place.count("/") > 6:
            directories.clear()
        for name in files:
            look(f"{place}/{name}")
print(found)
"""


async def test_no_file_of_the_kernel_can_be_opened_for_writing(box: ringfence.Sandbox) -> None:
    """core_pattern, sysrq-trigger, release_agent, cgroup limits, uevent helpers: none."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    assert await python(box, WALK, timeout=120) == "[]\n"
    script = """
for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/uevent_helper \\
    $(find /sys/fs/cgroup -name release_agent -o -name cgroup.procs -o -name notify_on_release \\
      -o -name memory.max -o -name memory.limit_in_bytes 2>/dev/null); do
    (echo 0 > $f) 2>/dev/null && echo "wrote $f"
done; true
"""
    assert await sh(box, script) == ""
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


async def test_no_namespace_and_no_mount_can_be_made(box: ringfence.Sandbox) -> None:
    """Which is how a process without rights gets some; neither as another user."""
    for line in ("unshare -Ur true", "unshare -m true", "mount -t tmpfs x /tmp", "umount /tmp",
                 "mount -o remount,rw /", "chroot / true", "pivot_root / /tmp",
                 "nsenter -t 1 -m true"):  # fmt: skip
        assert not (await box.exec(shell=line)).ok, line
    here = Path("/proc/self/ns/mnt").readlink()
    assert str(here) not in await sh(box, "readlink /proc/*/ns/mnt 2>/dev/null")
