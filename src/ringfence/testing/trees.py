"""Checks of trees that go in and come out."""

import os
from pathlib import Path

import pytest

import ringfence
from ringfence import Caps
from ringfence.testing.base import Checks


class TreeChecks(Checks):
    """upload and download."""

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        """A tree of the host with what trees hold."""
        root = tmp_path / "tree"
        (root / "sub" / "empty").mkdir(parents=True)
        (root / "file.txt").write_text("content")
        (root / "sub" / "program").write_bytes(os.urandom(300_000))
        (root / "sub" / "program").chmod(0o755)
        (root / "sub" / "link").symlink_to("../file.txt")
        (root / "name with\nnewline").write_bytes(b"")
        return root

    async def test_a_tree_goes_in(self, sandbox: ringfence.Sandbox, place: str, tree: Path) -> None:
        """Directories, files, permission bits and links are the same inside."""
        moved = await sandbox.files.upload(tree, f"{place}/t")
        assert (moved.members, moved.skipped) == (7, [])
        assert await sandbox.files.read(f"{place}/t/file.txt") == b"content"
        program = await sandbox.files.stat(f"{place}/t/sub/program")
        assert (program.size, program.mode) == (300_000, 0o755)
        assert await sandbox.files.readlink(f"{place}/t/sub/link") == "../file.txt"
        assert (await sandbox.files.stat(f"{place}/t/sub/empty")).is_directory
        assert await sandbox.files.exists(f"{place}/t/name with\nnewline")

    async def test_a_file_goes_in(self, sandbox: ringfence.Sandbox, place: str, tree: Path) -> None:
        """The destination is its name; one that is there is replaced."""
        await sandbox.files.write(f"{place}/f", b"something longer than that")
        moved = await sandbox.files.upload(tree / "file.txt", f"{place}/f")
        assert (moved.members, moved.bytes) == (1, 7)
        assert await sandbox.files.read(f"{place}/f") == b"content"

    async def test_uploading_twice_fills(
        self, sandbox: ringfence.Sandbox, place: str, tree: Path
    ) -> None:
        """What is there is replaced, links too, and the rest stays."""
        await sandbox.files.upload(tree, f"{place}/t")
        await sandbox.files.write(f"{place}/t/own", b"stays")
        (tree / "file.txt").write_text("changed")
        await sandbox.files.upload(tree, f"{place}/t")
        assert await sandbox.files.read(f"{place}/t/file.txt") == b"changed"
        assert await sandbox.files.read(f"{place}/t/own") == b"stays"

    async def test_what_is_no_file_is_left_out(
        self, sandbox: ringfence.Sandbox, place: str, tree: Path
    ) -> None:
        """A FIFO of the host does not block; it is named in the answer."""
        os.mkfifo(tree / "fifo")
        moved = await sandbox.files.upload(tree, f"{place}/t")
        assert [Path(path).name for path, _ in moved.skipped] == ["fifo"]
        assert not await sandbox.files.exists(f"{place}/t/fifo")

    async def test_a_missing_source(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """It is InvalidSpecError."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.files.upload("/no/such/path", f"{place}/t")

    async def test_a_tree_comes_back(
        self, sandbox: ringfence.Sandbox, place: str, tree: Path, tmp_path: Path
    ) -> None:
        """What went in comes out the same."""
        await sandbox.files.upload(tree, f"{place}/t")
        moved = await sandbox.files.download(f"{place}/t", tmp_path / "back")
        assert (moved.members, moved.skipped_total) == (7, 0)
        assert _content(tmp_path / "back") == _content(tree)

    async def test_a_file_comes_out(
        self, sandbox: ringfence.Sandbox, place: str, tmp_path: Path
    ) -> None:
        """A single file is made with its content."""
        await sandbox.files.write(f"{place}/f", b"content")
        moved = await sandbox.files.download(f"{place}/f", tmp_path / "f")
        assert (moved.members, moved.bytes) == (1, 7)
        assert (tmp_path / "f").read_bytes() == b"content"

    async def test_nothing_is_overwritten(
        self, sandbox: ringfence.Sandbox, place: str, tmp_path: Path
    ) -> None:
        """A destination that is there, a dangling link too, is PathExistsError."""
        await sandbox.files.write(f"{place}/f", b"content")
        (tmp_path / "there").mkdir()
        (tmp_path / "link").symlink_to("nowhere")
        for name in ("there", "link"):
            with pytest.raises(ringfence.PathExistsError):
                await sandbox.files.download(f"{place}/f", tmp_path / name)
        assert sorted(os.listdir(tmp_path)) == ["link", "there"]

    async def test_what_is_missing_cannot_come_out(
        self, sandbox: ringfence.Sandbox, place: str, tmp_path: Path
    ) -> None:
        """It is PathNotFoundError, and nothing is left here."""
        with pytest.raises(ringfence.PathNotFoundError):
            await sandbox.files.download(f"{place}/missing", tmp_path / "x")
        assert os.listdir(tmp_path) == []

    async def test_links_that_lead_out_stay_inside(
        self, sandbox: ringfence.Sandbox, place: str, tmp_path: Path
    ) -> None:
        """Absolute links, links above the tree and ".." behind a name are left out and named."""
        links = {
            "absolute": "/etc/passwd",
            "above": "../../outside",
            "behind": "d/../x",
            "fine": "d/f",
            "d/up": "../d",
        }
        await sandbox.files.write(f"{place}/t/d/f", b"x", parents=True)
        for name, target in links.items():
            await sandbox.files.symlink(target, f"{place}/t/{name}")
        moved = await sandbox.files.download(f"{place}/t", tmp_path / "t")
        assert sorted(path for path, _ in moved.skipped) == ["above", "absolute", "behind"]
        assert (tmp_path / "t" / "fine").read_bytes() == b"x"
        assert (tmp_path / "t" / "d" / "up").is_symlink()

    async def test_permission_bits_are_reduced(
        self, sandbox: ringfence.Sandbox, place: str, tmp_path: Path
    ) -> None:
        """Nothing comes out writable by others or with a set-id bit."""
        await sandbox.files.write(f"{place}/t/f", b"x", parents=True)
        await sandbox.files.chmod(f"{place}/t/f", 0o777)
        await sandbox.files.chmod(f"{place}/t", 0o777)
        await sandbox.files.download(f"{place}/t", tmp_path / "t")
        assert (tmp_path / "t").stat().st_mode & 0o7777 == 0o755
        assert (tmp_path / "t" / "f").stat().st_mode & 0o7777 == 0o755

    @pytest.mark.parametrize(
        "caps",
        [Caps(bytes=999), Caps(members=10), Caps(depth=2)],
        ids=["bytes", "members", "depth"],
    )
    async def test_bounds_hold_and_leave_nothing(
        self, sandbox: ringfence.Sandbox, place: str, tmp_path: Path, caps: Caps
    ) -> None:
        """Too many bytes, members or levels are UnsafeArchiveError, and nothing is left here."""
        for number in range(12):
            await sandbox.files.write(f"{place}/t/a/b/{number}", b"x" * 100, parents=True)
        with pytest.raises(ringfence.UnsafeArchiveError):
            await sandbox.files.download(f"{place}/t", tmp_path / "t", caps=caps)
        assert os.listdir(tmp_path) == []

    async def test_holes_count_as_content(
        self, sandbox: ringfence.Sandbox, place: str, tmp_path: Path
    ) -> None:
        """A sparse file that occupies next to nothing is stopped by the ratio."""
        await sandbox.files.write(f"{place}/sparse", b"x")
        await sandbox.files.write_at(f"{place}/sparse", 40 * 1024 * 1024, b"x")
        with pytest.raises(ringfence.UnsafeArchiveError):
            await sandbox.files.download(f"{place}/sparse", tmp_path / "x")
        assert os.listdir(tmp_path) == []

    async def test_a_failed_download_leaves_nothing(
        self, sandbox: ringfence.Sandbox, place: str, tmp_path: Path
    ) -> None:
        """An error of the progress callback is raised after everything was removed."""
        await sandbox.files.write(f"{place}/t/f", b"x" * 100_000, parents=True)

        def broken(done: int, total: int | None) -> None:
            raise LookupError(done, total)

        with pytest.raises(LookupError):
            await sandbox.files.download(f"{place}/t", tmp_path / "t", progress=broken)
        assert os.listdir(tmp_path) == []

    async def test_special_files_stay_inside(
        self, sandbox: ringfence.Sandbox, place: str, tmp_path: Path
    ) -> None:
        """A FIFO in the tree does not block and is named in the answer."""
        await sandbox.files.write(f"{place}/t/f", b"x", parents=True)
        (await sandbox.exec(["mkfifo", f"{place}/t/fifo"])).check()
        moved = await sandbox.files.download(f"{place}/t", tmp_path / "t")
        assert [path for path, _ in moved.skipped] == ["fifo"]
        assert sorted(os.listdir(tmp_path / "t")) == ["f"]

    async def test_progress_of_trees(
        self, sandbox: ringfence.Sandbox, place: str, tree: Path, tmp_path: Path
    ) -> None:
        """Both ways the callback ends with all bytes."""
        seen: list[tuple[int, int | None]] = []
        moved = await sandbox.files.upload(tree, f"{place}/t", progress=lambda *n: seen.append(n))
        assert max(seen)[0] == moved.bytes
        seen.clear()
        moved = await sandbox.files.download(
            f"{place}/t", tmp_path / "t", progress=lambda *n: seen.append(n)
        )
        assert max(seen) == (moved.bytes, moved.bytes)


def _content(root: Path) -> dict[str, tuple[int, object]]:
    found: dict[str, tuple[int, object]] = {}
    for path in sorted(root.rglob("*")):
        name, mode = str(path.relative_to(root)), path.lstat().st_mode
        if path.is_symlink():
            found[name] = (mode, os.readlink(path))
        else:
            found[name] = (mode, path.read_bytes() if path.is_file() else None)
    return found
