"""Checks of what is in files."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import PurePosixPath

import pytest

import ringfence
from ringfence.testing.base import Checks

MIB = 1024 * 1024


class ContentChecks(Checks):
    """Reading and writing: whole, in parts, as streams, atomically, within bounds."""

    async def test_what_is_written_is_read(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Any bytes come back as they were; the number written is told."""
        for data in (b"", b"\x00\xff", os.urandom(100_000)):
            assert await sandbox.files.write(f"{place}/f", data) == len(data)
            assert await sandbox.files.read(f"{place}/f") == data

    async def test_a_path_object_is_a_path(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """In every file operation, and among the arguments of a command."""
        path = PurePosixPath(place, "of", "text")
        await sandbox.files.write(path, "here", parents=True)
        assert await sandbox.files.read(path) == b"here"
        assert (await sandbox.files.stat(path)).size == 4
        assert [entry.name for entry in (await sandbox.files.list(path.parent)).entries] == ["text"]
        assert (await sandbox.exec(["cat", path])).stdout == b"here"
        await sandbox.files.rename(path, path.with_name("other"))
        await sandbox.files.remove(path.parent, recursive=True)
        assert not await sandbox.files.exists(path.parent)

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

    async def test_an_iterable_of_texts(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Pieces that are no bytes are InvalidSpecError; an atomic write leaves nothing."""

        async def texts() -> AsyncIterator[str]:
            yield "text"

        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.files.write(f"{place}/f", texts(), atomic=True)  # type: ignore[arg-type]
        assert (await sandbox.files.list(place)).names == ()

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
