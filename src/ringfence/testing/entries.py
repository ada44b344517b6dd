"""Checks of what directories hold."""

import pytest

import ringfence
from ringfence import Kind
from ringfence.testing.base import Checks


class EntryChecks(Checks):
    """Looking at entries, finding them, making, moving and removing them, and watching."""

    async def test_nothing_is_there(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Below a file, in a circle of links, and under a name too long is nothing."""
        await sandbox.files.write(f"{place}/f", b"")
        await sandbox.files.symlink("circle", f"{place}/circle")
        for name in ("absent", "f/below", "circle", "n" * 300):
            assert not await sandbox.files.exists(f"{place}/{name}")

    async def test_too_many_paths_to_look_at(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """A glob over its limit is FileTooLargeError that counts paths."""
        for name in "abc":
            await sandbox.files.write(f"{place}/{name}", b"")
        assert len(await sandbox.files.glob(f"{place}/*", limit=3)) == 3
        with pytest.raises(ringfence.FileTooLargeError, match="over 2 paths"):
            await sandbox.files.glob(f"{place}/*", limit=2)

    async def test_stat(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Kind, size, mode and time are told; links are followed unless said otherwise."""
        await sandbox.files.write(f"{place}/f", b"12345", mode=0o640)
        await sandbox.files.symlink("f", f"{place}/link")
        found = await sandbox.files.stat(f"{place}/f")
        assert (found.kind, found.size, found.mode, found.name) == (Kind.FILE, 5, 0o640, "f")
        assert found.mtime > 1_000_000_000
        assert (await sandbox.files.stat(place)).is_directory
        assert (await sandbox.files.stat(f"{place}/link")).is_file
        link = await sandbox.files.stat(f"{place}/link", follow_symlinks=False)
        assert link.kind is Kind.SYMLINK

    async def test_exists(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """True for what is there, False for what is not and for a dangling link."""
        await sandbox.files.symlink("missing", f"{place}/link")
        assert await sandbox.files.exists(place)
        assert not await sandbox.files.exists(f"{place}/missing")
        assert not await sandbox.files.exists(f"{place}/link")

    async def test_listing(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Every entry comes with its kind, and none twice."""
        await sandbox.files.write(f"{place}/file", b"1")
        await sandbox.files.mkdir(f"{place}/directory")
        await sandbox.files.symlink("file", f"{place}/link")
        listing = await sandbox.files.list(place)
        kinds = {entry.name: entry.kind for entry in listing.entries}
        assert kinds == {"file": Kind.FILE, "directory": Kind.DIRECTORY, "link": Kind.SYMLINK}
        assert listing.cursor is None

    async def test_a_listing_can_be_continued(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Pages of 40 give each of 130 names exactly once."""
        wanted = {f"n{number}" for number in range(130)}
        for name in wanted:
            await sandbox.files.write(f"{place}/{name}", b"")
        found: list[str] = []
        page = await sandbox.files.list(place, limit=40)
        found += page.names
        while page.cursor is not None:
            assert len(page.entries) <= 40
            page = await sandbox.files.list(place, limit=40, cursor=page.cursor)
            found += page.names
        assert len(found) == 130
        assert set(found) == wanted

    async def test_making_directories(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """One that exists is PathExistsError; with parents it is fine, and those above are made."""
        await sandbox.files.mkdir(f"{place}/d")
        with pytest.raises(ringfence.PathExistsError):
            await sandbox.files.mkdir(f"{place}/d")
        with pytest.raises(ringfence.PathNotFoundError):
            await sandbox.files.mkdir(f"{place}/x/y")
        await sandbox.files.mkdir(f"{place}/x/y", parents=True)
        await sandbox.files.mkdir(f"{place}/x/y", parents=True)
        assert (await sandbox.files.stat(f"{place}/x/y")).is_directory

    async def test_removing(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """A file, an empty directory, a tree; a full directory only when asked for."""
        await sandbox.files.write(f"{place}/d/e/f", b"", parents=True)
        with pytest.raises(ringfence.PathExistsError):
            await sandbox.files.remove(f"{place}/d")
        assert await sandbox.files.remove(f"{place}/d", recursive=True) == 3
        with pytest.raises(ringfence.PathNotFoundError):
            await sandbox.files.remove(f"{place}/d")

    async def test_removing_does_not_follow_links(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """A link in a tree goes, what it leads to stays."""
        await sandbox.files.write(f"{place}/keep/f", b"x", parents=True)
        await sandbox.files.mkdir(f"{place}/d")
        await sandbox.files.symlink(f"{place}/keep", f"{place}/d/link")
        await sandbox.files.remove(f"{place}/d", recursive=True)
        assert await sandbox.files.read(f"{place}/keep/f") == b"x"

    async def test_renaming(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """The name changes; what is there is replaced, or PathExistsError when asked for."""
        await sandbox.files.write(f"{place}/a", b"a")
        await sandbox.files.write(f"{place}/b", b"b")
        with pytest.raises(ringfence.PathExistsError):
            await sandbox.files.rename(f"{place}/a", f"{place}/b", replace=False)
        await sandbox.files.rename(f"{place}/a", f"{place}/b")
        assert await sandbox.files.read(f"{place}/b") == b"a"
        assert not await sandbox.files.exists(f"{place}/a")

    async def test_copying(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """A file, and a tree with links as links."""
        await sandbox.files.write(f"{place}/d/f", b"content", parents=True)
        await sandbox.files.symlink("f", f"{place}/d/link")
        assert await sandbox.files.copy(f"{place}/d/f", f"{place}/g") == 7
        await sandbox.files.copy(f"{place}/d", f"{place}/e", recursive=True)
        assert await sandbox.files.read(f"{place}/e/f") == b"content"
        assert await sandbox.files.readlink(f"{place}/e/link") == "f"

    async def test_permission_bits(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """chmod is seen by stat."""
        await sandbox.files.write(f"{place}/f", b"")
        await sandbox.files.chmod(f"{place}/f", 0o751)
        assert (await sandbox.files.stat(f"{place}/f")).mode == 0o751

    async def test_links_hold_any_text(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """A link is made and read without looking at where it leads."""
        for number, target in enumerate(["f", "../..", "/etc/shadow", "no such\nthing"]):
            await sandbox.files.symlink(target, f"{place}/{number}")
            assert await sandbox.files.readlink(f"{place}/{number}") == target

    async def test_glob(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """*, ?, [..] and ** match as in a shell; the answer is sorted."""
        for name in ("a.py", "b.py", "c.txt", "d/e.py", "d/f/g.py", ".hidden/h.py"):
            await sandbox.files.write(f"{place}/{name}", b"", parents=True)

        async def names(pattern: str) -> list[str]:
            found = await sandbox.files.glob(f"{place}/{pattern}")
            return [path.removeprefix(f"{place}/") for path in found]

        assert await names("*.py") == ["a.py", "b.py"]
        assert await names("?.txt") == ["c.txt"]
        assert await names("[!a].py") == ["b.py"]
        assert await names("**/*.py") == ["a.py", "b.py", "d/e.py", "d/f/g.py"]
        assert await names(".hidden/*") == [".hidden/h.py"]
        assert await names("nothing*") == []
        assert await names("missing/*") == []
        assert await names("c.txt") == ["c.txt"]

    async def test_glob_is_bounded(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Above the limit it is FileTooLargeError, not a part of the answer."""
        for number in range(5):
            await sandbox.files.write(f"{place}/{number}", b"")
        with pytest.raises(ringfence.FileTooLargeError):
            await sandbox.files.glob(f"{place}/*", limit=4)

    async def test_walking(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Everything below comes once; links are not followed."""
        await sandbox.files.write(f"{place}/a/b/c", b"", parents=True)
        await sandbox.files.symlink("..", f"{place}/a/up")
        found = [entry.path async for entry in sandbox.files.walk(place)]
        assert sorted(found) == [
            f"{place}/a",
            f"{place}/a/b",
            f"{place}/a/b/c",
            f"{place}/a/up",
        ]

    async def test_watching(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Changes come as events with their kind and path; without a watch, UnsupportedError."""
        try:
            async with sandbox.files.watch(place) as events:
                await sandbox.files.write(f"{place}/f", b"x")
                await sandbox.files.remove(f"{place}/f")
                kinds = set()
                async for event in events:
                    assert event.path == f"{place}/f"
                    kinds.add(event.kind)
                    if event.kind == "deleted":
                        break
        except ringfence.UnsupportedError:
            return
        assert {"created", "deleted"} <= kinds

    async def test_what_is_watched_can_be_moved_away(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """The watched path itself is told of as moved_from; without a watch, UnsupportedError."""
        await sandbox.files.mkdir(f"{place}/watched")
        try:
            async with sandbox.files.watch(f"{place}/watched") as events:
                await sandbox.files.rename(f"{place}/watched", f"{place}/elsewhere")
                event = await anext(aiter(events))
        except ringfence.UnsupportedError:
            return
        assert event.kind == "moved_from"
        assert event.path == f"{place}/watched"
