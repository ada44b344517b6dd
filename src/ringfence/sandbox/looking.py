"""Looking at the files of a sandbox where that takes more than one question to its guest."""

import errno
import os
import posixpath
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ringfence.errors import FileError, FileTooLargeError, InvalidSpecError, UnsupportedError
from ringfence.guest.failures import too_large
from ringfence.guest.files import Files as GuestFiles
from ringfence.guest.files import Path
from ringfence.guest.given import whole_number
from ringfence.guest.protocol import Cred, Feature
from ringfence.guest.walks import Watch
from ringfence.sandbox.context import Context
from ringfence.sandbox.entries import FileEvent, FileInfo, Listing, below, file_event
from ringfence.sandbox.globbing import Pattern
from ringfence.sandbox.progress import Progress, counted

DEEPEST = 2**32 - 1
"""The depth of a walk that none bounds."""
MOST_ENTRIES = 2**32 - 2
_NOTHING_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


def is_nothing(error: FileError) -> bool:
    """Whether it says that nothing is there; a link in circles leads to nothing."""
    return error.context.get("errno") in _NOTHING_THERE


def text(path: Path) -> str:
    """A path as text, bytes that are not UTF-8 as surrogates."""
    return path if isinstance(path, str) else os.fsdecode(path)


async def read_told(
    files: GuestFiles,
    path: Path,
    who: Cred,
    progress: Progress,
    *,
    offset: int,
    length: int | None,
    max_bytes: int | None,
) -> bytes:
    """See `Files.read`; progress hears of the bytes so far and in all."""
    if max_bytes is not None:
        whole_number(max_bytes, "max_bytes", 2**63 - 1)
    async with files.open_read(path, who, offset=offset, length=length) as reader:
        total = max(0, (await files.stat(path, who)).size - offset)
        total = total if length is None else min(total, length)
        data = bytearray()
        async for chunk in counted(reader, progress, total):
            data += chunk
            if max_bytes is not None and len(data) > max_bytes:
                raise too_large("files.read", os.fsencode(path), max_bytes)
    return bytes(data)


async def page(
    files: GuestFiles, path: Path, who: Cred, *, limit: int, cursor: bytes | None
) -> Listing:
    """See `Files.list`."""
    found: list[FileInfo] = []
    place: bytes | None = cursor or b""
    while place is not None and len(found) < limit:
        try:
            part = await files.list_dir(path, who, cursor=place, limit=limit - len(found))
        except FileError as error:
            if place and error.context.get("errno") == errno.EINVAL:
                raise no_cursor() from None
            raise
        found += map(below(text(path)), part.entries)
        place = part.cursor
    return Listing(tuple(found), place)


def no_cursor() -> InvalidSpecError:
    """The error for a cursor that no page gave."""
    return InvalidSpecError(
        "cursor: it is none of this directory: take the one of the page before",
        op="files.list",
        context={"fields": ["cursor"]},
    )


async def glob(files: GuestFiles, wanted: Pattern, who: Cred, limit: int) -> tuple[str, ...]:
    """See `Files.glob`; for a pattern that is no plain path."""
    found: list[str] = []
    seen = 0
    depth = DEEPEST if wanted.depth is None else wanted.depth
    walk = files.walk(wanted.base, who, depth=depth, max_entries=limit + 1)
    info = below(wanted.base)
    try:
        async for batch in walk:
            seen += len(batch)
            found += filter(wanted.matches, (info(entry).path for entry in batch))
    except FileError as error:
        if is_nothing(error):
            return ()
        raise
    finally:
        await walk.aclose()
    if seen > limit:
        raise FileTooLargeError(
            f"files.glob: there are over {limit} paths to look at for {wanted.pattern!r}: raise the"
            " limit, or begin the pattern with a longer directory",
            op="files.glob",
            context={"path": wanted.pattern, "limit": limit},
        )
    return tuple(sorted(found))


@asynccontextmanager
async def watched(
    context: Context, path: Path, who: Cred, *, recursive: bool
) -> AsyncIterator[AsyncIterator[FileEvent]]:
    """See `Files.watch`."""
    watch = await context.session.files.watch(path, who, recursive=recursive)
    try:
        yield _Changes(watch, text(path))
    finally:
        await watch.aclose()


class _Changes(AsyncIterator[FileEvent]):
    """What a watch tells of a path. No generator: that would end with the first wait for an event
    that is cancelled."""

    def __init__(self, watch: Watch, base: str) -> None:
        self._watch = watch
        self._base = base

    async def __anext__(self) -> FileEvent:
        mask, cookie, path = await anext(self._watch)
        where = posixpath.join(self._base, os.fsdecode(path)) if path else self._base
        return file_event(mask, cookie, where)


def check_watch(context: Context) -> None:
    """UnsupportedError where changes cannot be watched."""
    if not context.session.hello.features & Feature.WATCH:
        raise UnsupportedError("files.watch: not possible in this sandbox", op="files.watch")
