"""Row 30: no set-id bit is made on a mount that the host sees, nor comes out, nor goes in."""

import os
import stat
from pathlib import Path

import pytest

import ringfence
from ringfence.errors import InvalidSpecError

from .conftest import ALL, DOCKER, PROCESS, keywords, sh

pytestmark = pytest.mark.asyncio(loop_scope="module")

ATTACK = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
top = sys.argv[1]
def go(name, work):
    path = f"{top}/{name}"
    try:
        work(path)
    except OSError:
        pass
    if os.path.exists(path) and os.stat(path).st_mode & 0o6000:
        print(name)
def made(path, mode=0o755):
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, mode))
os.umask(0)
for mode in (0o4755, 0o2755, 0o6777):
    go(f"create-{mode:o}", lambda p: made(p, mode))
    go(f"chmod-{mode:o}", lambda p: (made(p), os.chmod(p, mode)))
    go(f"fchmod-{mode:o}", lambda p: (made(p), os.fchmod(os.open(p, os.O_RDONLY), mode)))
    go(f"fchmodat2-{mode:o}", lambda p: (made(p), libc.syscall(452, -100, p.encode(), mode, 0)))
    go(f"openat2-{mode:o}", lambda p: libc.syscall(437, -100, p.encode(),
        (ctypes.c_uint64 * 3)(os.O_CREAT | os.O_WRONLY, mode, 0), 24))
    go(f"creat-{mode:o}", lambda p: libc.syscall(85, p.encode(), mode))
    go(f"mknod-{mode:o}", lambda p: os.mknod(p, mode | 0o100000))
    go(f"mkdir-{mode:o}", lambda p: os.mkdir(p, mode))
    go(f"tmpfile-{mode:o}", lambda p: os.link(
        f"/proc/self/fd/{os.open(top, os.O_TMPFILE | os.O_WRONLY, mode)}", p))
    go(f"mknodat-{mode:o}", lambda p: libc.syscall(259, -100, p.encode(), mode | 0o100000, 0))
os.chdir(top)
"""


@pytest.mark.parametrize("kind", [DOCKER, PROCESS])
async def test_no_set_id_bit_appears_on_a_writable_mount(
    state: Path, kind: str, mountable: Path
) -> None:
    """By no call that makes or changes a file; what the host finds there is plain."""
    mountable.chmod(0o777)
    mounts = [{"source": str(mountable), "destination": "/data", "read_only": False}]
    async with ringfence.open(**keywords(kind), mounts=mounts) as sandbox:
        result = await sandbox.exec(["python3", "-c", ATTACK, "/data"])
        assert result.stdout == b"", result.stderr
        assert await sh(sandbox, "mknod /data/null c 1 3 2>/dev/null && echo made") == ""
        await sandbox.files.write("/data/by-api", b"x")
        for mode in (0o4755, 0o2755, -1):
            for work in (
                sandbox.files.chmod("/data/by-api", mode),
                sandbox.files.write("/data/new", b"x", mode=mode),
                sandbox.files.mkdir("/data/made", mode=mode),
            ):
                with pytest.raises(InvalidSpecError):
                    await work
    found = [path for path in mountable.rglob("*") if path.lstat().st_mode & 0o6000]
    assert found == []
    assert list(mountable.iterdir())
    for path in mountable.iterdir():
        assert stat.S_ISREG(path.lstat().st_mode) or path.is_dir()


@ALL
async def test_set_id_bits_neither_go_in_nor_come_out(
    box: ringfence.Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "program").write_bytes(b"#!/bin/sh\n")
    os.chmod(tmp_path / "in" / "program", 0o6755)  # noqa: PTH101 - the call that is tested against
    await box.files.upload(tmp_path / "in", "/tmp/in")
    assert (await box.files.stat("/tmp/in/program")).mode & 0o6000 == 0
    await box.files.download("/tmp/in", tmp_path / "out")
    assert (tmp_path / "out" / "program").stat().st_mode & 0o6000 == 0


@ALL
async def test_a_set_id_program_of_the_image_gives_nothing(box: ringfence.Sandbox) -> None:
    """no_new_privileges holds, and the mounts are nosuid or the filter is there all the same."""
    script = (
        "for p in su passwd mount chsh; do command -v $p >/dev/null && $p --version; done; id -u"
    )
    seen = await sh(box, f"{script}; grep NoNewPrivs /proc/self/status || true")
    assert "\n0\n" not in f"\n{seen}"
    assert "NoNewPrivs:\t0" not in seen
