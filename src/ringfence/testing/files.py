"""Checks of files inside."""

import asyncio
import errno
import os
import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest

import ringfence
from ringfence import Kind
from ringfence.backends.base import Features
from ringfence.testing.base import Checks

MIB = 1024 * 1024


class FileChecks(Checks):
    """Reading, writing, looking and changing, each with the permissions of its user."""

    async def test_what_is_written_is_read(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Any bytes come back as they were; the number written is told."""
        for data in (b"", b"\x00\xff", os.urandom(100_000)):
            assert await sandbox.files.write(f"{place}/f", data) == len(data)
            assert await sandbox.files.read(f"{place}/f") == data

    async def test_text_has_an_encoding(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Text is UTF-8 unless said otherwise; what does not decode is UnicodeDecodeError."""
        await sandbox.files.write(f"{place}/f", "grün")
        assert await sandbox.files.read_text(f"{place}/f") == "grün"
        await sandbox.files.write(f"{place}/f", "grün", encoding="latin-1")
        assert await sandbox.files.read_text(f"{place}/f", encoding="latin-1") == "grün"
        with pytest.raises(UnicodeDecodeError):
            await sandbox.files.read_text(f"{place}/f")

    async def test_writing_replaces(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """A shorter content leaves nothing of the longer one."""
        await sandbox.files.write(f"{place}/f", b"longer content")
        await sandbox.files.write(f"{place}/f", b"short")
        assert await sandbox.files.read(f"{place}/f") == b"short"

    async def test_appending(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """append makes the file, then adds to its end."""
        await sandbox.files.append(f"{place}/f", b"one")
        await sandbox.files.append(f"{place}/f", "two")
        assert await sandbox.files.read(f"{place}/f") == b"onetwo"

    async def test_overwriting_a_part(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """write_at changes what is there from an offset and keeps the rest."""
        await sandbox.files.write(f"{place}/f", b"0123456789")
        await sandbox.files.write_at(f"{place}/f", 3, b"abc")
        assert await sandbox.files.read(f"{place}/f") == b"012abc6789"

    async def test_a_part_is_read(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """offset and length choose the bytes."""
        await sandbox.files.write(f"{place}/f", b"0123456789")
        assert await sandbox.files.read(f"{place}/f", offset=2, length=3) == b"234"
        assert await sandbox.files.read(f"{place}/f", offset=8) == b"89"

    @pytest.mark.parametrize(
        ("verb", "wrong"),
        [
            ("read", {"offset": -1}),
            ("read", {"offset": 2**64}),
            ("read", {"length": -1}),
            ("read", {"length": "5"}),
            ("read", {"max_bytes": -1}),
            ("list", {"limit": 0}),
            ("list", {"limit": 2**40}),
            ("list", {"cursor": "text"}),
            ("list", {"cursor": b"of elsewhere"}),
            ("write", {"data": 5}),
            ("write", {"data": b"", "mode": "644"}),
            ("write", {"data": b"", "mode": None}),
            ("write_at", {"offset": -1, "data": b""}),
            ("write_at", {"offset": 2**64, "data": b""}),
            ("glob", {"limit": -1}),
        ],
        ids=str,
    )
    async def test_wrong_arguments(
        self, sandbox: ringfence.Sandbox, place: str, verb: str, wrong: dict[str, object]
    ) -> None:
        """What no file can have is InvalidSpecError, and nothing is done."""
        path = place if verb == "list" else f"{place}/f"
        await sandbox.files.write(f"{place}/f", b"kept")
        with pytest.raises(ringfence.InvalidSpecError):
            await getattr(sandbox.files, verb)(path, **wrong)
        assert await sandbox.files.read(f"{place}/f") == b"kept"

    @pytest.mark.parametrize("path", [5, None, "relative", "", "/nul\0", "/\ud800"], ids=repr)
    async def test_what_is_no_path(self, sandbox: ringfence.Sandbox, path: Any) -> None:
        """Other types, and texts that no path can be, are InvalidSpecError for every verb."""
        files = sandbox.files
        for asked in (files.read, files.stat, files.exists, files.list, files.remove, files.glob):
            with pytest.raises(ringfence.InvalidSpecError):
                await asked(path)
        with pytest.raises(ringfence.InvalidSpecError):
            await files.write(path, b"")

    async def test_an_iterable_of_texts(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Pieces that are no bytes are InvalidSpecError; an atomic write leaves nothing."""

        async def texts() -> AsyncIterator[str]:
            yield "text"

        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.files.write(f"{place}/f", texts(), atomic=True)  # type: ignore[arg-type]
        assert (await sandbox.files.list(place)).names == ()

    async def test_nothing_is_there(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Below a file, in a circle of links, and under a name too long is nothing."""
        await sandbox.files.write(f"{place}/f", b"")
        await sandbox.files.symlink("circle", f"{place}/circle")
        for name in ("absent", "f/below", "circle", "n" * 300):
            assert not await sandbox.files.exists(f"{place}/{name}")

    async def test_what_cannot_be_opened_is_told_at_once(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """When the block begins, not when it first reads; an empty file opens."""
        for path, error in (
            (f"{place}/absent", ringfence.PathNotFoundError),
            (place, ringfence.PathIsADirectoryError),
        ):
            with pytest.raises(error):
                await sandbox.files.open(path).__aenter__()
        await sandbox.files.write(f"{place}/empty", b"")
        async with sandbox.files.open(f"{place}/empty") as reader:
            assert await reader.read() == b""

    async def test_errors_are_pythons_own_besides(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """With errno, strerror and filename, after pickling too: `except OSError` works."""
        with pytest.raises(FileNotFoundError) as caught:
            await sandbox.files.read(f"{place}/absent")
        for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
            assert (error.errno, error.filename) == (errno.ENOENT, f"{place}/absent")
            assert error.strerror == os.strerror(errno.ENOENT)
            assert isinstance(error, ringfence.PathNotFoundError)

    async def test_an_error_of_two_paths_names_both(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """A file moved or copied over a directory: the message says which two."""
        await sandbox.files.write(f"{place}/f", b"")
        await sandbox.files.mkdir(f"{place}/d")
        for verb in (sandbox.files.rename, sandbox.files.copy):
            with pytest.raises(ringfence.PathIsADirectoryError) as caught:
                await verb(f"{place}/f", f"{place}/d")
            assert f"'{place}/f' to '{place}/d'" in str(caught.value)
            assert caught.value.path == f"{place}/f"

    async def test_too_many_paths_to_look_at(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """A glob over its limit is FileTooLargeError that counts paths."""
        for name in "abc":
            await sandbox.files.write(f"{place}/{name}", b"")
        assert len(await sandbox.files.glob(f"{place}/*", limit=3)) == 3
        with pytest.raises(ringfence.FileTooLargeError, match="over 2 paths"):
            await sandbox.files.glob(f"{place}/*", limit=2)

    async def test_exclusive_writing(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """A file that is there is PathExistsError, and stays as it is."""
        await sandbox.files.write(f"{place}/f", b"old", exclusive=True)
        with pytest.raises(ringfence.PathExistsError):
            await sandbox.files.write(f"{place}/f", b"new", exclusive=True)
        assert await sandbox.files.read(f"{place}/f") == b"old"

    async def test_missing_parents(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """They are PathNotFoundError, or made when asked for."""
        with pytest.raises(ringfence.PathNotFoundError):
            await sandbox.files.write(f"{place}/a/b/f", b"x")
        await sandbox.files.write(f"{place}/a/b/f", b"x", parents=True)
        assert await sandbox.files.read(f"{place}/a/b/f") == b"x"

    async def test_streams_of_any_length(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """5 MiB are written from an iterable and read as a stream."""
        data = os.urandom(5 * MIB)

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 100_000):
                yield data[start : start + 100_000]

        assert await sandbox.files.write(f"{place}/f", pieces()) == len(data)
        found = bytearray()
        async with sandbox.files.open(f"{place}/f") as reader:
            async for chunk in reader:
                found += chunk
        assert bytes(found) == data

    async def test_a_stream_can_be_left_early(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """The sandbox goes on when a reader stops in the middle."""
        await sandbox.files.write(f"{place}/f", b"x" * 3 * MIB)
        async with sandbox.files.open(f"{place}/f") as reader:
            assert await reader.read(5) == b"xxxxx"
        assert await sandbox.files.read(f"{place}/f", length=1) == b"x"

    @pytest.mark.parametrize("mode", [0o600, 0o666, 0o444], ids=oct)
    async def test_atomic_writing_keeps_the_mode(
        self, sandbox: ringfence.Sandbox, place: str, mode: int
    ) -> None:
        """What replaces a private file is as private; `mode` is of a new file alone."""
        await sandbox.files.write(f"{place}/f", b"old", mode=0o644)
        await sandbox.files.chmod(f"{place}/f", mode)
        await sandbox.files.write(f"{place}/f", b"new", atomic=True, mode=0o640)
        assert (await sandbox.files.stat(f"{place}/f")).mode == mode
        assert await sandbox.files.read(f"{place}/f") == b"new"

    async def test_atomic_writing(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """When the iterable fails, the old content is there, and nothing beside it."""

        async def broken() -> AsyncIterator[bytes]:
            yield b"new"
            raise LookupError("broken")

        await sandbox.files.write(f"{place}/f", b"old")
        with pytest.raises(LookupError):
            await sandbox.files.write(f"{place}/f", broken(), atomic=True)
        assert await sandbox.files.read(f"{place}/f") == b"old"
        assert (await sandbox.files.list(place)).names == ("f",)

    async def test_a_missing_file(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """It is PathNotFoundError, Python's FileNotFoundError too, with path and sandbox."""
        with pytest.raises(FileNotFoundError) as caught:
            await sandbox.files.read(f"{place}/missing")
        error = caught.value
        assert isinstance(error, ringfence.PathNotFoundError)
        assert error.path == f"{place}/missing"
        assert error.sandbox_id == sandbox.id

    async def test_a_directory_is_no_file(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Reading and writing one is PathIsADirectoryError."""
        with pytest.raises(ringfence.PathIsADirectoryError):
            await sandbox.files.read(place)
        with pytest.raises(ringfence.PathIsADirectoryError):
            await sandbox.files.write(place, b"x")

    async def test_a_file_is_no_directory(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Listing one, or going through it, is PathNotADirectoryError."""
        await sandbox.files.write(f"{place}/f", b"")
        with pytest.raises(ringfence.PathNotADirectoryError):
            await sandbox.files.list(f"{place}/f")
        with pytest.raises(ringfence.PathNotADirectoryError):
            await sandbox.files.read(f"{place}/f/below")

    async def test_reading_is_bounded(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """More than max_bytes, or 10 MiB when it is not said, is FileTooLargeError."""
        await sandbox.files.write(f"{place}/f", b"x" * (10 * MIB + 1))
        with pytest.raises(ringfence.FileTooLargeError):
            await sandbox.files.read(f"{place}/f")
        with pytest.raises(ringfence.FileTooLargeError):
            await sandbox.files.read(f"{place}/f", max_bytes=10)
        assert len(await sandbox.files.read(f"{place}/f", max_bytes=None)) == 10 * MIB + 1
        await sandbox.files.remove(f"{place}/f")

    async def test_a_fifo_is_refused_at_once(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Reading what would block or never end is FileError, not a wait."""
        (await sandbox.exec(["mkfifo", f"{place}/fifo"])).check()
        for path in (f"{place}/fifo", "/dev/zero"):
            with pytest.raises(ringfence.FileError):
                await asyncio.wait_for(sandbox.files.read(path), 20)

    async def test_permissions_are_the_users(self, sandbox: ringfence.Sandbox) -> None:
        """Where the user may not write, PathDeniedError, Python's PermissionError too."""
        for path in ("/etc/ringfence-check", "/ringfence-check"):
            with pytest.raises(PermissionError) as caught:
                await sandbox.files.write(path, b"x")
            assert isinstance(caught.value, ringfence.PathDeniedError)

    async def test_another_user_has_other_permissions(
        self, sandbox: ringfence.Sandbox, place: str, features: Features
    ) -> None:
        """user= acts as that user: a private file is denied to it, its own are its own."""
        if not features.users:
            with pytest.raises(ringfence.UnsupportedError):
                await sandbox.files.read(place, user=12345)
            return
        await sandbox.files.write(f"{place}/private", b"x", mode=0o600)
        with pytest.raises(ringfence.PathDeniedError):
            await sandbox.files.read(f"{place}/private", user=12345)
        await sandbox.files.chmod(place, 0o777)
        await sandbox.files.write(f"{place}/theirs", b"x", user=12345)
        assert (await sandbox.files.stat(f"{place}/theirs")).uid == 12345

    async def test_files_belong_to_the_commands_user(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """What is written here is the user's, and commands see it; and the other way round."""
        await sandbox.files.write(f"{place}/f", b"from here")
        uid = int((await sandbox.exec(["id", "-u"])).stdout)
        assert (await sandbox.files.stat(f"{place}/f")).uid == uid
        assert (await sandbox.exec(["cat", f"{place}/f"])).stdout == b"from here"
        await sandbox.exec(shell=f"echo from there > {place}/g")
        assert await sandbox.files.read(f"{place}/g") == b"from there\n"

    @pytest.mark.parametrize("path", ["relative", "", "./x", "/tmp/\0"])
    async def test_paths_that_cannot_be_are_refused(
        self, sandbox: ringfence.Sandbox, path: str
    ) -> None:
        """Not absolute, or with a NUL: InvalidSpecError."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.files.read(path)

    async def test_names_may_be_any_bytes(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Newlines, quotes, other scripts and bytes that are no UTF-8 are listed as they are."""
        names = [b"new\nline", b"sp ace", b"'\"$`", "ü☃".encode(), b"\xff\xfe", b"-rf", b"*"]
        for name in names:
            await sandbox.files.write(place.encode() + b"/" + name, name)
        listing = await sandbox.files.list(place)
        assert sorted(os.fsencode(entry.name) for entry in listing.entries) == sorted(names)
        for entry in listing.entries:
            assert await sandbox.files.read(entry.path) == os.fsencode(entry.name)

    async def test_a_name_that_is_too_long(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """256 bytes are FileError."""
        with pytest.raises(ringfence.FileError):
            await sandbox.files.write(f"{place}/{'x' * 256}", b"")

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

    async def test_progress_is_told(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Both ways the callback ends with all bytes."""
        seen: list[tuple[int, int | None]] = []
        data = b"x" * 700_000
        await sandbox.files.write(f"{place}/f", data, progress=lambda *n: seen.append(n))
        assert seen[-1] == (len(data), len(data))
        seen.clear()
        await sandbox.files.read(f"{place}/f", progress=lambda *n: seen.append(n))
        assert seen[-1] == (len(data), len(data))

    async def test_many_operations_at_once(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """60 writes and reads side by side do not mix."""

        async def one(number: int) -> bool:
            data = str(number).encode() * 1000
            await sandbox.files.write(f"{place}/{number}", data)
            return await sandbox.files.read(f"{place}/{number}") == data

        assert all(await asyncio.gather(*(one(number) for number in range(60))))
