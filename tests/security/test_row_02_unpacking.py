"""Rows 2 and 11: what a sandbox sends as a tree makes the host write nowhere else, nor without end."""

import os
from pathlib import Path

import pytest

import ringfence
from ringfence import Caps
from ringfence.errors import UnsafeArchiveError
from ringfence.sandbox.extract import Extractor

from .conftest import BOTH, sh

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = """
mkdir -p /tmp/t/d && cd /tmp/t
echo fine > fine
ln -s /etc absolute
ln -s ../../../../etc above
ln -s d/../../.. behind
ln -s absolute/passwd through
ln -s /proc/self/cwd magic
ln fine hard
ln -s loop loop
mkfifo fifo
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("/tmp/t/socket")'
mkdir sticky && chmod 1777 sticky
echo x > "$(printf 'a\\nb\\033[2J')"
echo x > "$(printf 'bad\\377')"
echo x > ..x; echo x > '...'; echo x > 'C:\\x'; echo x > ' '
"""


@BOTH
async def test_a_hostile_tree_is_made_beneath_or_left_out(
    box: ringfence.Sandbox, tmp_path: Path
) -> None:
    """Links out, FIFOs and sockets are left out and named; hard links come as files of their own."""
    await box.exec(shell=HOSTILE)
    moved = await box.files.download("/tmp/t", tmp_path / "t")
    root = tmp_path / "t"
    left_out = {path for path, _ in moved.skipped}
    assert left_out == {"absolute", "above", "behind", "magic", "fifo", "socket"}
    for path in (Path(place, name) for place, d, f in os.walk(root) for name in (*d, *f)):
        status = path.lstat()
        assert status.st_mode & 0o7022 == 0 or path.is_symlink()
        assert path.is_file() or path.is_dir() or path.is_symlink()
        assert path.is_dir() or status.st_nlink == 1
        if path.is_symlink() and path.name != "loop":
            assert path.resolve().is_relative_to(root)
    assert (root / "hard").read_text() == "fine\n"
    assert os.fsencode(root) + b"/bad\xff" in [e.path for e in os.scandir(os.fsencode(root))]
    assert sorted(os.listdir(tmp_path)) == ["t"]


@BOTH
@pytest.mark.parametrize("make", [
    "truncate -s 4T /tmp/x/holes || truncate -s 1G /tmp/x/holes",
    "cd /tmp/x; for i in $(seq 70); do mkdir d; cd d; done",
    "cd /tmp/x; seq 3000 | xargs touch",
])  # fmt: skip
async def test_bombs_end_at_a_bound_and_leave_nothing(
    box: ringfence.Sandbox, tmp_path: Path, make: str
) -> None:
    """Holes count as content, depth and members are counted as they come."""
    await box.exec(shell=f"mkdir /tmp/x; {make}")
    caps = Caps(bytes=256 * 2**20, members=2000)
    with pytest.raises(UnsafeArchiveError):
        await box.files.download("/tmp/x", tmp_path / "x", caps=caps)
    assert os.listdir(tmp_path) == []


@BOTH
async def test_a_file_without_end_is_not_followed(box: ringfence.Sandbox, tmp_path: Path) -> None:
    """One that grows while it is copied ends at the bound, not with the disk."""
    grow = "mkdir /tmp/x; echo ready; while cat /dev/zero | head -c 1M >> /tmp/x/f; do :; done"
    async with box.spawn(shell=f"({grow}) 2>/dev/null", timeout=60) as process:
        assert await process.stdout.read(6) == b"ready\n"
        caps = Caps(bytes=2**20)
        await box.exec(shell="while [ $(stat -c %s /tmp/x/f || echo 0) -lt 3000000 ]; do :; done")
        with pytest.raises(UnsafeArchiveError):
            await box.files.download("/tmp/x", tmp_path / "x", caps=caps)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", [
    b"..", b"../x", b"a/../../x", b"/etc/x", b"a//b", b".", b"", b"a\0b", b"x" * 300, b"a/" * 80,
])  # fmt: skip
async def test_names_that_no_directory_can_hold_are_refused(tmp_path: Path, name: bytes) -> None:
    """A guest that was taken over could send them."""
    (tmp_path / "root").mkdir()
    with Extractor(str(tmp_path / "root"), Caps()) as extractor:
        for make in (extractor.directory, extractor.expect, lambda n: extractor.link(n, b"x")):
            with pytest.raises(UnsafeArchiveError):
                make(name)
        with pytest.raises(UnsafeArchiveError):
            extractor.file(name, 0o644, 0)
    assert [p.name for p in tmp_path.rglob("*")] == ["root"]


async def test_a_link_that_was_planted_meanwhile_is_not_followed(tmp_path: Path) -> None:
    """Neither as a directory on the way nor as the file itself, whoever puts it there."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root).mkdir()
    outside.mkdir()
    with Extractor(str(root), Caps()) as extractor:
        extractor.directory(b"d")
        (root / "d").rmdir()
        (root / "d").symlink_to(outside)
        (root / "f").symlink_to(outside / "f")
        for path in (b"d/x", b"f"):
            with pytest.raises(UnsafeArchiveError):
                extractor.file(path, 0o644, 0)
        with pytest.raises(UnsafeArchiveError):
            extractor.directory_mode(b"d", 0o755)
    assert os.listdir(outside) == []


@BOTH
async def test_a_tree_that_goes_in_leads_no_link_of_the_sandbox_out(
    box: ringfence.Sandbox, tmp_path: Path
) -> None:
    """An upload onto links that the sandbox made writes with its user's permissions, inside."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("mine")
    await box.exec(shell="mkdir /tmp/t; ln -s /etc/passwd /tmp/t/file")
    with pytest.raises(ringfence.FileError):
        await box.files.upload(tmp_path / "tree", "/tmp/t")
    assert "mine" not in await sh(box, "cat /etc/passwd")
