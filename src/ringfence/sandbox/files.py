"""The files of a sandbox.

Every operation acts as the sandbox's user, or as `user`, and has that user's permissions, no more.
Paths are absolute, text (bytes that are not UTF-8 as surrogates) or bytes. Errors are FileError's
classes with the path: PathNotFoundError, PathExistsError, PathIsADirectoryError,
PathNotADirectoryError, PathDeniedError, FileTooLargeError, FileError; InvalidSpecError for a path
that is not absolute or holds a NUL; and those of every operation (StateError, SandboxLostError,
NotFoundError for the user). Cancellation ends what takes long; what is short may still happen.
"""

import builtins
import errno
import os
import posixpath
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager

from ringfence.errors import (
    FileError,
    FileTooLargeError,
    InvalidSpecError,
    PathNotFoundError,
    UnsupportedError,
)
from ringfence.guest.protocol import Feature, WriteFlag, whole_number
from ringfence.guest.reading import Reader
from ringfence.sandbox import downloading, later, uploading
from ringfence.sandbox.context import Context
from ringfence.sandbox.downloading import DOWNLOAD_CAPS
from ringfence.sandbox.entries import FileEvent, FileInfo, Listing, below, file_event, file_info
from ringfence.sandbox.extract import Caps
from ringfence.sandbox.globbing import Pattern
from ringfence.sandbox.moved import Moved
from ringfence.sandbox.progress import Progress, counted

READ_CAP = 10 * 1024 * 1024
"""Bytes that `read` gives out unless it is told otherwise."""
LIST_CAP = 10_000
GLOB_CAP = 100_000
_MOST_ENTRIES = 2**32 - 2
_NOTHING_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})

Path = str | bytes
User = str | int | None
Data = bytes | bytearray | memoryview | str | AsyncIterable[bytes]


class Files:
    """File operations of one sandbox; see the module."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __repr__(self) -> str:
        return f"<Files of sandbox {self._context.id}>"

    # Reading.

    async def read(
        self,
        path: Path,
        *,
        offset: int = 0,
        length: int | None = None,
        max_bytes: int | None = READ_CAP,
        user: User = None,
        progress: Progress | None = None,
    ) -> bytes:
        """The bytes of a regular file from `offset`, at most `length` of them.

        FileTooLargeError when that is over `max_bytes` (None: no bound), before more is kept; what
        is neither file nor directory (a FIFO, a device) is a FileError at once.
        """
        with self._context.operation("files.read"):
            who = await self._context.cred(user)
            files = self._context.session.files
            if progress is None:
                return await files.read(
                    path, who, offset=offset, length=length, max_bytes=max_bytes
                )
            size = (await files.stat(path, who)).size
            data = bytearray()
            async with files.open_read(path, who, offset=offset, length=length) as reader:
                async for chunk in counted(reader, progress, size - offset):
                    data += chunk
                    _check_size("files.read", path, len(data), max_bytes)
            return bytes(data)

    async def read_text(
        self,
        path: Path,
        *,
        encoding: str = "utf-8",
        errors: str = "strict",
        max_bytes: int | None = READ_CAP,
        user: User = None,
    ) -> str:
        """The file as text. UnicodeDecodeError, unless `errors` says otherwise."""
        data = await self.read(path, max_bytes=max_bytes, user=user)
        return data.decode(encoding, errors)

    @asynccontextmanager
    async def open(
        self, path: Path, *, offset: int = 0, length: int | None = None, user: User = None
    ) -> AsyncIterator[Reader]:
        """The file as a stream of any length: `async with files.open(p) as reader`, then
        `async for chunk in reader` or `await reader.read(n)`. At most 1 MiB is held.

        What cannot be opened is a FileError when the block begins.
        """
        with self._context.operation("files.open"):
            who = await self._context.cred(user)
            files = self._context.session.files
            async with files.open_read(path, who, offset=offset, length=length) as reader:
                await reader.begun()
                yield reader

    # Writing.

    async def write(
        self,
        path: Path,
        data: Data,
        *,
        encoding: str = "utf-8",
        mode: int = 0o644,
        parents: bool = False,
        exclusive: bool = False,
        atomic: bool = False,
        user: User = None,
        progress: Progress | None = None,
    ) -> int:
        """Make or replace a file; the number of bytes.

        data: bytes, text in `encoding`, or an async iterable of bytes. mode: of a new file.
        parents: make missing directories. exclusive: PathExistsError when it is there. atomic: the
        old content stays until the new one is complete; without it cancellation, or an error of
        the iterable, leaves what was written.
        """
        flags = WriteFlag.CREATE | WriteFlag.TRUNCATE
        flags |= WriteFlag.PARENTS if parents else 0
        flags |= WriteFlag.EXCLUSIVE if exclusive else 0
        flags |= WriteFlag.ATOMIC if atomic else 0
        sent = data.encode(encoding) if isinstance(data, str) else data
        return await self._write(
            "files.write", path, sent, flags, mode=mode, user=user, progress=progress
        )

    async def append(
        self,
        path: Path,
        data: Data,
        *,
        encoding: str = "utf-8",
        mode: int = 0o644,
        user: User = None,
        progress: Progress | None = None,
    ) -> int:
        """Write at the end of a file, made when missing; the number of bytes."""
        flags = WriteFlag.CREATE | WriteFlag.APPEND
        sent = data.encode(encoding) if isinstance(data, str) else data
        return await self._write(
            "files.append", path, sent, flags, mode=mode, user=user, progress=progress
        )

    async def write_at(self, path: Path, offset: int, data: bytes, *, user: User = None) -> int:
        """Overwrite a part of a file that is there, from `offset`; the number of bytes."""
        with self._context.operation("files.write_at"):
            who = await self._context.cred(user)
            return await self._context.session.files.write(path, who, data, flags=0, offset=offset)

    async def _write(
        self,
        op: str,
        path: Path,
        data: bytes | bytearray | memoryview | AsyncIterable[bytes],
        flags: int,
        *,
        mode: int,
        user: User,
        progress: Progress | None,
    ) -> int:
        _check_mode(op, mode)
        with self._context.operation(op):
            who = await self._context.cred(user)
            sent = data if progress is None else counted(data, progress)
            return await self._context.session.files.write(path, who, sent, flags=flags, mode=mode)

    # Looking.

    async def stat(
        self, path: Path, *, follow_symlinks: bool = True, user: User = None
    ) -> FileInfo:
        """What stat(2) says, or lstat(2)."""
        with self._context.operation("files.stat"):
            who = await self._context.cred(user)
            found = await self._context.session.files.stat(path, who, follow=follow_symlinks)
            return file_info(_text(path), found)

    async def exists(self, path: Path, *, user: User = None) -> bool:
        """Whether something is there; a link that leads to nothing, or in circles, is nothing.

        PathDeniedError where the user may not look.
        """
        try:
            await self.stat(path, user=user)
        except FileError as error:
            if error.context.get("errno") in _NOTHING_THERE:
                return False
            raise
        return True

    async def list(
        self,
        path: Path,
        *,
        limit: int = LIST_CAP,
        cursor: bytes | None = None,
        user: User = None,
    ) -> Listing:
        """One page of at most `limit` entries of a directory, in no order.

        cursor: of the page before; InvalidSpecError for another. Links are not followed.
        """
        whole_number(limit, "limit", _MOST_ENTRIES, 1)
        if not isinstance(cursor, bytes | None):
            raise _no_cursor()
        with self._context.operation("files.list"):
            who = await self._context.cred(user)
            found: builtins.list[FileInfo] = []
            place: bytes | None = cursor or b""
            while place is not None and len(found) < limit:
                try:
                    page = await self._context.session.files.list_dir(
                        path, who, cursor=place, limit=limit - len(found)
                    )
                except FileError as error:
                    if place and error.context.get("errno") == errno.EINVAL:
                        raise _no_cursor() from None
                    raise
                found += map(below(_text(path)), page.entries)
                place = page.cursor
            return Listing(tuple(found), place)

    async def walk(
        self,
        path: Path,
        *,
        depth: int | None = None,
        max_entries: int | None = None,
        user: User = None,
    ) -> AsyncIterator[FileInfo]:
        """Everything below a directory; links are not followed. depth 1 is the directory itself."""
        with self._context.operation("files.walk"):
            who = await self._context.cred(user)
            walk = self._context.session.files.walk(
                path,
                who,
                depth=2**32 - 1 if depth is None else depth,
                max_entries=2**64 - 1 if max_entries is None else max_entries,
            )
            try:
                async for batch in walk:
                    for entry in map(below(_text(path)), batch):
                        yield entry
            finally:
                await walk.aclose()

    async def glob(
        self, pattern: str, *, limit: int = GLOB_CAP, user: User = None
    ) -> tuple[str, ...]:
        """The paths that match, sorted: `*`, `?`, `[...]` within a name, `**` across directories.

        The pattern is absolute. Names that begin with a dot match only a pattern's dot. At most
        `limit` paths are looked at: FileTooLargeError above, rather than a part of the answer.
        """
        whole_number(limit, "limit", _MOST_ENTRIES)
        wanted = Pattern(pattern)
        if wanted.literal:
            return (pattern,) if await self.exists(pattern, user=user) else ()
        found = []
        seen = 0
        try:
            async for entry in self.walk(wanted.base, max_entries=limit + 1, user=user):
                seen += 1
                if wanted.matches(entry.path):
                    found.append(entry.path)
        except PathNotFoundError:
            return ()
        if seen > limit:
            raise FileTooLargeError(
                f"files.glob: there are over {limit} paths to look at for {pattern!r}: raise the"
                " limit, or begin the pattern with a longer directory",
                op="files.glob",
                context={"path": pattern, "limit": limit},
            )
        return tuple(sorted(found))

    @asynccontextmanager
    async def watch(
        self, path: Path, *, recursive: bool = False, user: User = None
    ) -> AsyncIterator[AsyncIterator[FileEvent]]:
        """Changes below a path: `async with files.watch(p) as events`, `async for event in events`.

        The watch is set when the block begins. UnsupportedError where there is none.
        """
        with self._context.operation("files.watch"):
            if not self._context.session.hello.features & Feature.WATCH:
                raise UnsupportedError(
                    "files.watch: not possible in this sandbox", op="files.watch"
                )
            who = await self._context.cred(user)
            watch = await self._context.session.files.watch(path, who, recursive=recursive)
            base = _text(path)

            async def events() -> AsyncIterator[FileEvent]:
                async for event in watch:
                    where = posixpath.join(base, os.fsdecode(event.path)) if event.path else base
                    yield file_event(event.mask, event.cookie, where)

            try:
                yield events()
            finally:
                await watch.aclose()

    # Changing.

    async def mkdir(
        self, path: Path, *, mode: int = 0o755, parents: bool = False, user: User = None
    ) -> None:
        """Make a directory; with `parents` also those above it, and one that exists is fine."""
        _check_mode("files.mkdir", mode)
        with self._context.operation("files.mkdir"):
            who = await self._context.cred(user)
            await self._context.session.files.mkdir(path, who, mode=mode, parents=parents)

    async def remove(self, path: Path, *, recursive: bool = False, user: User = None) -> int:
        """Remove a file, a link, an empty directory, or a whole tree; how many entries."""
        with self._context.operation("files.remove"):
            who = await self._context.cred(user)
            return await self._context.session.files.remove(path, who, recursive=recursive)

    async def rename(
        self, path: Path, to: Path, *, replace: bool = True, user: User = None
    ) -> None:
        """Rename or move; PathExistsError when `to` is there and is not to be replaced."""
        with self._context.operation("files.rename"):
            who = await self._context.cred(user)
            await self._context.session.files.rename(path, to, who, replace=replace)

    async def copy(
        self, path: Path, to: Path, *, recursive: bool = False, user: User = None
    ) -> int:
        """Copy a file, or a tree, inside the sandbox; the number of bytes."""
        with self._context.operation("files.copy"):
            who = await self._context.cred(user)
            return await self._context.session.files.copy(path, to, who, recursive=recursive)

    async def chmod(self, path: Path, mode: int, *, user: User = None) -> None:
        """Set the permission bits. InvalidSpecError for set-id bits, which nothing gets."""
        _check_mode("files.chmod", mode)
        with self._context.operation("files.chmod"):
            await self._context.session.files.chmod(path, await self._context.cred(user), mode)

    async def symlink(self, target: Path, path: Path, *, user: User = None) -> None:
        """Make a symbolic link at `path` that holds `target`, whatever that is."""
        with self._context.operation("files.symlink"):
            await self._context.session.files.symlink(target, path, await self._context.cred(user))

    async def readlink(self, path: Path, *, user: User = None) -> str:
        """What a symbolic link holds."""
        with self._context.operation("files.readlink"):
            who = await self._context.cred(user)
            return os.fsdecode(await self._context.session.files.readlink(path, who))

    # Trees, in and out.

    async def upload(
        self,
        source: str | os.PathLike[str],
        destination: Path,
        *,
        user: User = None,
        progress: Progress | None = None,
    ) -> Moved:
        """Copy a file or a tree of the host to `destination` inside, which becomes its name.

        Directories, regular files and symbolic links (as links) go in, with their permission bits;
        FIFOs, devices and sockets are left out and named in the answer. A file that is there is
        replaced, a directory is filled. InvalidSpecError when something of the source is missing or
        cannot be read.
        """
        with self._context.operation("files.upload"):
            who = await self._context.cred(user)
            return await uploading.upload(
                self._context, os.fspath(source), _text(destination), who, progress
            )

    async def download(
        self,
        source: Path,
        destination: str | os.PathLike[str] | None = None,
        *,
        store: "later.Store | None" = None,
        caps: Caps = DOWNLOAD_CAPS,
        user: User = None,
        progress: Progress | None = None,
    ) -> Moved:
        """Copy a file or a tree of the sandbox to `destination` on the host, which must not exist.

        What comes is not trusted: only directories, regular files and symbolic links that stay
        beneath `destination` are made, with mode & 0755; everything else is left out and named in
        the answer. UnsafeArchiveError for names that cannot be and above `caps`. It appears
        whole or, when anything is raised or cancelled, not at all. PathExistsError.

        store: instead of a destination, a content store (`ringfence.digest.store`) that a regular
        file goes into as a blob; the answer has its digest. The store's own errors are raised.
        """
        if (destination is None) == (store is None):
            raise InvalidSpecError(
                "download: name either a destination or a store",
                op="files.download",
                context={"fields": ["destination", "store"]},
            )
        with self._context.operation("files.download"):
            who = await self._context.cred(user)
            if store is not None:
                from ringfence.sandbox import keeping

                return await keeping.keep(
                    self._context, _text(source), store, who, most=caps.bytes, progress=progress
                )
            assert destination is not None  # noqa: S101 - one of the two is there
            return await downloading.download(
                self._context,
                _text(source),
                os.fspath(destination),
                who,
                caps=caps,
                progress=progress,
            )


def _text(path: Path) -> str:
    return path if isinstance(path, str) else os.fsdecode(path)


def _no_cursor() -> InvalidSpecError:
    return InvalidSpecError(
        "cursor: it is none of this directory: take the one of the page before",
        op="files.list",
        context={"fields": ["cursor"]},
    )


def _check_mode(op: str, mode: int) -> None:
    if not isinstance(mode, int) or mode & ~0o1777:
        shown = f"{mode:#o}" if isinstance(mode, int) else repr(mode)
        raise InvalidSpecError(
            f"mode: {shown} is more than permission bits: set-user-id and set-group-id are not"
            " given",
            op=op,
            context={"fields": ["mode"]},
        )


def _check_size(op: str, path: Path, size: int, limit: int | None) -> None:
    from ringfence.guest.failures import too_large

    if limit is not None and size > limit:
        raise too_large(op, os.fsencode(path), limit)
