"""The files of a sandbox.

Every operation acts as the sandbox's user, or as `user`, and has that user's permissions, no more.
Paths are absolute, text (bytes that are not UTF-8 as surrogates) or bytes. Errors are FileError's
classes with the path: PathNotFoundError, PathExistsError, PathIsADirectoryError,
PathNotADirectoryError, PathDeniedError, FileTooLargeError, FileError; InvalidSpecError for a path
that is not absolute or holds a NUL; and those of every operation (StateError, SandboxLostError,
NotFoundError for the user). Cancellation ends what takes long; what is short may still happen.
"""

import os
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager

from ringfence.errors import FileError, InvalidSpecError
from ringfence.guest.files import Path
from ringfence.guest.given import whole_number
from ringfence.guest.protocol import WriteFlag
from ringfence.guest.reading import Reader
from ringfence.sandbox import later, looking
from ringfence.sandbox.context import Context
from ringfence.sandbox.entries import FileEvent, FileInfo, Listing, below, file_info
from ringfence.sandbox.extract import DOWNLOAD_CAPS, Caps
from ringfence.sandbox.globbing import Pattern
from ringfence.sandbox.moved import Moved
from ringfence.sandbox.progress import Progress, counted

READ_CAP = 10 * 1024 * 1024
"""Bytes that `read` gives out unless it is told otherwise."""
LIST_CAP = 10_000
GLOB_CAP = 100_000

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
        is neither file nor directory (a FIFO, a device) is a FileError at once. progress: called
        with the bytes so far, and those there are in all as far as that is known.
        """
        with self._context.operation("files.read"):
            who = await self._context.cred(user)
            files = self._context.session.files
            if progress is None:
                return await files.read(
                    path, who, offset=offset, length=length, max_bytes=max_bytes
                )
            return await looking.read_told(
                files, path, who, progress, offset=offset, length=length, max_bytes=max_bytes
            )

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

        data: bytes, text in `encoding` (UnicodeEncodeError), or an async iterable of bytes. mode:
        of a new file. parents: make missing directories. exclusive: PathExistsError when it is
        there. atomic: the old content stays until the new one is complete, and a link at `path` is
        replaced, not followed; without it cancellation, or an error of the iterable, leaves what
        was written. progress: called with the bytes so far, and those there are in all, None for an
        iterable.
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
        """Write at the end of a file, made when missing; the number of bytes. What is given as in
        `write`; cancellation leaves what was written."""
        flags = WriteFlag.CREATE | WriteFlag.APPEND
        sent = data.encode(encoding) if isinstance(data, str) else data
        return await self._write(
            "files.append", path, sent, flags, mode=mode, user=user, progress=progress
        )

    async def write_at(self, path: Path, offset: int, data: bytes, *, user: User = None) -> int:
        """Overwrite a part of a file that is there, from `offset`, or write behind its end; the
        number of bytes."""
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
            return file_info(looking.text(path), found)

    async def exists(self, path: Path, *, user: User = None) -> bool:
        """Whether something is there; a link that leads to nothing, or in circles, is nothing.

        PathDeniedError where the user may not look.
        """
        try:
            await self.stat(path, user=user)
        except FileError as error:
            if looking.is_nothing(error):
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
        whole_number(limit, "limit", looking.MOST_ENTRIES, 1)
        if not isinstance(cursor, bytes | None):
            raise looking.no_cursor()
        with self._context.operation("files.list"):
            who = await self._context.cred(user)
            files = self._context.session.files
            return await looking.page(files, path, who, limit=limit, cursor=cursor)

    async def walk(
        self,
        path: Path,
        *,
        depth: int | None = None,
        max_entries: int | None = None,
        user: User = None,
    ) -> AsyncIterator[FileInfo]:
        """Everything below a directory. Links are not followed; a directory that may not be read is
        shown without what is in it. depth: 1 is the directory itself, None any. max_entries: the
        walk ends after so many. It holds at most 1 MiB, and is over once a step is cancelled."""
        with self._context.operation("files.walk"):
            who = await self._context.cred(user)
            walk = self._context.session.files.walk(
                path,
                who,
                depth=looking.DEEPEST if depth is None else depth,
                max_entries=2**64 - 1 if max_entries is None else max_entries,
            )
            try:
                async for batch in walk:
                    for entry in map(below(looking.text(path)), batch):
                        yield entry
            finally:
                await walk.aclose()

    async def glob(
        self, pattern: str, *, limit: int = GLOB_CAP, user: User = None
    ) -> tuple[str, ...]:
        """The paths that match, sorted: `*`, `?`, `[...]` within a name, `**` across directories.

        The pattern is absolute. Names that begin with a dot match only a pattern's dot. At most
        `limit` paths are looked at, no deeper than a pattern without `**` goes: FileTooLargeError
        above, rather than a part of the answer.
        """
        whole_number(limit, "limit", looking.MOST_ENTRIES)
        wanted = Pattern(pattern)
        if wanted.literal:
            return (pattern,) if await self.exists(pattern, user=user) else ()
        with self._context.operation("files.glob"):
            who = await self._context.cred(user)
            return await looking.glob(self._context.session.files, wanted, who, limit)

    @asynccontextmanager
    async def watch(
        self, path: Path, *, recursive: bool = False, user: User = None
    ) -> AsyncIterator[AsyncIterator[FileEvent]]:
        """Changes below a path: `async with files.watch(p) as events`, `async for event in events`.

        The watch is set when the block begins, and a wait for an event that is cancelled leaves it.
        Of a reader that is slow 4096 events are kept; "overflow" stands for what came after.
        UnsupportedError where there is none.
        """
        with self._context.operation("files.watch"):
            looking.check_watch(self._context)
            who = await self._context.cred(user)
            async with looking.watched(self._context, path, who, recursive=recursive) as events:
                yield events

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
        """Remove a file, a link, an empty directory, or a whole tree; how many entries. An error or
        a cancellation in a tree leaves the rest of it."""
        with self._context.operation("files.remove"):
            who = await self._context.cred(user)
            return await self._context.session.files.remove(path, who, recursive=recursive)

    async def rename(
        self, path: Path, to: Path, *, replace: bool = True, user: User = None
    ) -> None:
        """Rename or move within a file system; PathExistsError when `to` is there and is not to be
        replaced, or a directory that is not empty."""
        with self._context.operation("files.rename"):
            who = await self._context.cred(user)
            await self._context.session.files.rename(path, to, who, replace=replace)

    async def copy(
        self, path: Path, to: Path, *, recursive: bool = False, user: User = None
    ) -> int:
        """Copy a file, or a tree, inside the sandbox; the number of bytes.

        A file that is there is replaced, a directory filled. Modes are kept, owners and times not,
        links in a tree stay links. An error or a cancellation leaves what was copied.
        """
        with self._context.operation("files.copy"):
            who = await self._context.cred(user)
            return await self._context.session.files.copy(path, to, who, recursive=recursive)

    async def chmod(self, path: Path, mode: int, *, user: User = None) -> None:
        """Set the permission bits of what a path leads to. InvalidSpecError for set-id bits, which
        nothing gets."""
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
        replaced, a directory is filled. A source that is a link is what it leads to. progress: as
        of `read`, for all files. InvalidSpecError when something of the source is missing or cannot
        be read. An error or a cancellation leaves what was copied.
        """
        with self._context.operation("files.upload"):
            from ringfence.sandbox import uploading

            who = await self._context.cred(user)
            return await uploading.upload(
                self._context, os.fsdecode(source), looking.text(destination), who, progress
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
        whole or, when anything is raised or cancelled, not at all. PathExistsError;
        ResourceExhaustedError when the disk of the host is full. progress: as of `read`.

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

                path = looking.text(source)
                return await keeping.keep(
                    self._context, path, store, who, most=caps.bytes, progress=progress
                )
            assert destination is not None  # noqa: S101 - one of the two is there
            from ringfence.sandbox import downloading

            return await downloading.download(
                self._context,
                looking.text(source),
                os.fsdecode(destination),
                who,
                caps=caps,
                progress=progress,
            )


def _check_mode(op: str, mode: int) -> None:
    number = isinstance(mode, int) and not isinstance(mode, bool)
    if not number or mode & ~0o1777:
        shown = f"{mode:#o}" if number else repr(mode)
        raise InvalidSpecError(
            f"mode: {shown} is more than permission bits: set-user-id and set-group-id are not"
            " given",
            op=op,
            context={"fields": ["mode"]},
        )
