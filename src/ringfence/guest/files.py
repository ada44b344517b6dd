"""The files of the sandbox, as its guest reaches them.

Every operation names the user it runs as (`who`) and has that user's permissions. Paths are
absolute; str is UTF-8 with surrogateescape. Names come back as bytes. Errors: the FileError of
ringfence.guest.failures, InvalidSpecError for a path that cannot be sent, and the session's.
Cancellation ends what takes long inside too; short operations may still take effect.
"""

import asyncio
import errno
import struct
from collections.abc import AsyncIterable, Callable
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

from ringfence.errors import InvalidSpecError
from ringfence.guest.failures import file_error
from ringfence.guest.given import content, text, whole_number
from ringfence.guest.operation import ANSWER_SECONDS, Question, T, nothing
from ringfence.guest.payload import Payload
from ringfence.guest.protocol import (
    NO_CAP,
    U8,
    U32,
    Answer,
    Ask,
    Cred,
    Failure,
    Stat,
    WriteFlag,
    cred,
    string,
)
from ringfence.guest.reading import Reader, Whole
from ringfence.guest.walks import Entry, Walk, Watch, unpack_entries
from ringfence.guest.writing import Writer

if TYPE_CHECKING:
    from ringfence.guest.connection import Connection

TREE_SECONDS = 3600.0
"""How long REMOVE and COPY may take."""
_WHOLE_BYTES = 1024 * 1024
_LONGEST_PATH = 4095
"""Bytes of a path that a kernel takes."""
_READ = struct.Struct("<QQ")
_WRITE = struct.Struct("<IIQ")
_LIST = struct.Struct("<IB")
_WALK = struct.Struct("<IQ")

_LAST_U32 = 2**32 - 1
_LAST_OFFSET = 2**63 - 1

Path = str | bytes | PurePath


class Page(NamedTuple):
    """Some entries of a directory; `cursor` continues behind them, None at the end."""

    entries: list[Entry]
    cursor: bytes | None


class Files:
    """File operations over one session."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    async def stat(self, path: Path, who: Cred, *, follow: bool = True) -> Stat:
        """What stat(2), or lstat(2) without `follow`, says."""
        place = _path(path)
        payload = cred(who) + U8.pack(follow) + string(place)
        return await self._ask("stat", Ask.STAT, place, payload, Payload.stat)

    async def list_dir(
        self,
        path: Path,
        who: Cred,
        *,
        cursor: bytes = b"",
        limit: int = 1000,
        with_stat: bool = True,
    ) -> Page:
        """One page of at most `limit` entries, "." and ".." left out, in no order.

        cursor: of the page before, empty for the first. Without `with_stat` every stat is zeros.
        """
        place = _path(path)
        payload = cred(who) + string(place) + string(cursor)
        payload += _LIST.pack(whole_number(limit, "limit", _LAST_U32, 1), with_stat)
        return await self._ask("list", Ask.LIST_DIR, place, payload, _page)

    async def read(
        self,
        path: Path,
        who: Cred,
        *,
        offset: int = 0,
        length: int | None = None,
        max_bytes: int | None = None,
    ) -> bytes:
        """The bytes of a regular file from `offset`, at most `length` of them (None: to the end).

        FileTooLargeError when there are more than `max_bytes`, before more than that is kept.
        """
        place = _path(path)
        wanted = NO_CAP if length is None else whole_number(length, "length", _LAST_OFFSET)
        if max_bytes is not None:
            wanted = min(wanted, whole_number(max_bytes, "max_bytes", _LAST_OFFSET) + 1)
        whole_number(offset, "offset", _LAST_OFFSET)
        transfer = Whole(self._connection, place, offset, max_bytes)
        payload = cred(who) + string(place) + _READ.pack(offset, wanted)
        self._begin(transfer, Ask.READ, payload)
        try:
            return await transfer.future
        except asyncio.CancelledError:
            transfer.cancel()
            raise

    def open_read(
        self, path: Path, who: Cred, *, offset: int = 0, length: int | None = None
    ) -> Reader:
        """Like `read`, as an async iterator of bytes that holds at most 1 MiB; errors come from it.

        Close it (`async with`) when not reading to the end.
        """
        place = _path(path)
        wanted = NO_CAP if length is None else whole_number(length, "length", _LAST_OFFSET)
        whole_number(offset, "offset", _LAST_OFFSET)
        reader = Reader(self._connection, place, offset)
        payload = cred(who) + string(place) + _READ.pack(offset, wanted)
        self._begin(reader, Ask.READ, payload)
        return reader

    async def write(
        self,
        path: Path,
        who: Cred,
        data: bytes | bytearray | memoryview | AsyncIterable[bytes],
        *,
        flags: int = WriteFlag.CREATE | WriteFlag.TRUNCATE,
        mode: int = 0o644,
        offset: int = 0,
    ) -> int:
        """Write `data` to a file; the number of bytes written. flags: of `protocol.WriteFlag`.

        Cancellation, or an error of the iterable, abandons it: with ATOMIC the file is as before,
        else it holds what was written.
        """
        place = _path(path)
        whole_number(offset, "offset", _LAST_OFFSET)
        begin = cred(who) + string(place)
        if not isinstance(data, AsyncIterable):
            data = content(data, "data")
        if not isinstance(data, AsyncIterable) and len(data) <= _WHOLE_BYTES:
            payload = begin + _WRITE.pack(flags | WriteFlag.WHOLE, mode, offset) + data
            return await self._ask("write", Ask.WRITE, place, payload, Payload.u64)
        writer = Writer(self._connection, place)
        payload = begin + _WRITE.pack(flags & ~WriteFlag.WHOLE, mode, offset)
        self._begin(writer, Ask.WRITE, payload)
        try:
            await writer.pour(data)
            return await writer.future
        except BaseException:
            writer.cancel()
            raise

    async def mkdir(
        self, path: Path, who: Cred, *, mode: int = 0o755, parents: bool = False
    ) -> None:
        """Make a directory; with `parents` also those above it, and one that exists is fine."""
        place = _path(path)
        payload = cred(who) + U32.pack(mode) + U8.pack(parents) + string(place)
        await self._ask("mkdir", Ask.MKDIR, place, payload, nothing)

    async def remove(self, path: Path, who: Cred, *, recursive: bool = False) -> int:
        """Remove a file, a link or an empty directory, or a whole tree; how many entries."""
        place = _path(path)
        payload = cred(who) + U8.pack(recursive) + string(place)
        return await self._ask("remove", Ask.REMOVE, place, payload, Payload.u64, long=True)

    async def rename(self, path: Path, to: Path, who: Cred, *, replace: bool = True) -> None:
        """Rename; PathExistsError when `to` exists and is not to be replaced."""
        place = _path(path)
        there = _path(to)
        payload = cred(who) + U8.pack(replace) + string(place) + string(there)
        await self._ask("rename", Ask.RENAME, place, payload, nothing, to=there)

    async def chmod(self, path: Path, who: Cred, mode: int) -> None:
        """Set the permission bits."""
        place = _path(path)
        payload = cred(who) + U32.pack(mode) + string(place)
        await self._ask("chmod", Ask.CHMOD, place, payload, nothing)

    async def copy(self, path: Path, to: Path, who: Cred, *, recursive: bool = False) -> int:
        """Copy a file, or a tree, inside the sandbox; the number of bytes."""
        place = _path(path)
        there = _path(to)
        payload = cred(who) + U8.pack(recursive) + string(place) + string(there)
        return await self._ask("copy", Ask.COPY, place, payload, Payload.u64, long=True, to=there)

    async def symlink(self, target: Path, path: Path, who: Cred) -> None:
        """Make a symbolic link at `path` that holds `target`, whatever that is."""
        place = _path(path)
        payload = cred(who) + string(text(target, "target")) + string(place)
        await self._ask("symlink", Ask.SYMLINK, place, payload, nothing)

    async def readlink(self, path: Path, who: Cred) -> bytes:
        """What the symbolic link at `path` holds."""
        place = _path(path)
        payload = cred(who) + string(place)
        return await self._ask("readlink", Ask.READLINK, place, payload, Payload.string)

    def walk(
        self, path: Path, who: Cred, *, depth: int = 2**32 - 1, max_entries: int = NO_CAP
    ) -> Walk:
        """All that is below a directory, as an async iterator of lists of entries.

        Names are paths relative to the directory; links are not followed. It holds at most 1 MiB.
        Use `aclose()` when leaving it early.
        """
        place = _path(path)
        whole_number(depth, "depth", _LAST_U32, 1)
        whole_number(max_entries, "max_entries", NO_CAP)
        walk = Walk(self._connection, place)
        payload = cred(who) + string(place) + _WALK.pack(depth, max_entries)
        self._begin(walk, Ask.WALK, payload)
        return walk

    async def watch(self, path: Path, who: Cred, *, recursive: bool = False) -> Watch:
        """Changes below `path` from now on, as an async iterator of events; `aclose()` ends it."""
        place = _path(path)
        watch = Watch(self._connection, place)
        payload = cred(who) + U8.pack(recursive) + string(place)
        self._begin(watch, Ask.WATCH, payload)
        try:
            await watch.armed
        except asyncio.CancelledError:
            watch.cancel()
            raise
        return watch

    def _begin(
        self, operation: Reader | Whole | Writer | Walk | Watch, op: int, payload: bytes
    ) -> None:
        self._connection.issue(operation, op, payload, ANSWER_SECONDS)

    async def _ask(
        self,
        name: str,
        op: int,
        path: bytes,
        payload: bytes,
        parse: Callable[[Payload], T],
        *,
        long: bool = False,
        to: bytes | None = None,
    ) -> T:
        connection = self._connection
        fail = partial(file_error, f"files.{name}", path, to=to)
        question = Question(f"files.{name}", Answer.DONE, parse, fail)
        seconds = TREE_SECONDS if long else ANSWER_SECONDS
        operation_id = connection.issue(question, op, payload, seconds)
        try:
            return await question.future
        except asyncio.CancelledError:
            connection.drop(question)
            if long:
                connection.send(Ask.CANCEL, operation_id)
            raise


def _page(fields: Payload) -> Page:
    more = fields.u8()
    cursor = fields.string()
    return Page(unpack_entries(fields), cursor if more else None)


def _path(path: Path) -> bytes:
    place = text(path, "path")
    if not place.startswith(b"/"):
        raise InvalidSpecError(
            f"path: {path!r} is not absolute: write it from / on, such as /workspace/file",
            op="files",
            context={"fields": ["path"]},
        )
    if len(place) > _LONGEST_PATH:
        raise file_error("files", place[:80] + b"...", Failure(errno.ENAMETOOLONG, 0, ""))
    return place
