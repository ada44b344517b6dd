"""From a file or a tree of the host to one in a sandbox."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from ringfence.backends.finish import finish
from ringfence.errors import InvalidSpecError, PathExistsError
from ringfence.guest.files import Files as GuestFiles
from ringfence.guest.protocol import Cred
from ringfence.sandbox.context import Context
from ringfence.sandbox.moved import Moved, each, tell
from ringfence.sandbox.progress import Progress

_CHUNK = 256 * 1024


class _Member(NamedTuple):
    source: str
    inside: str
    status: os.stat_result


async def upload(
    context: Context, source: str, destination: str, who: Cred, progress: Progress | None
) -> Moved:
    """See `Files.upload`."""
    members, moved = await asyncio.to_thread(_survey, source, destination)
    total = sum(m.status.st_size for m in members if stat.S_ISREG(m.status.st_mode))
    upload_ = _Upload(context.session.files, who, moved, progress, total)
    directories = [m for m in members if stat.S_ISDIR(m.status.st_mode)]
    for member in directories:
        await upload_.directory(member)
    await each([m for m in members if not stat.S_ISDIR(m.status.st_mode)], upload_.member)
    for member in reversed(directories):
        await upload_.directory_mode(member)
    tell(context, "upload", destination, moved)
    return moved


def _survey(source: str, destination: str) -> tuple[list[_Member], Moved]:
    """Everything of a source that can go in, a directory before what is in it."""
    moved = Moved()
    try:
        status = os.stat(source)  # noqa: PTH116
        if stat.S_ISREG(status.st_mode):
            source = os.path.realpath(source)  # no file is opened through a link
    except (OSError, ValueError) as error:
        raise _unreadable(source, error) from None
    top = _Member(source, destination.rstrip("/") or "/", status)
    return [member for member in _below(top) if _fits(member, moved)], moved


def _unreadable(path: str, error: OSError | ValueError) -> InvalidSpecError:
    why = error.strerror if isinstance(error, OSError) else error
    return InvalidSpecError(
        f"upload: {path!r} cannot be read: {why}",
        op="files.upload",
        context={"fields": ["source"], "path": path},
    )


def _below(top: _Member) -> Iterator[_Member]:
    waiting = [top]
    while waiting:
        member = waiting.pop()
        yield member
        if stat.S_ISDIR(member.status.st_mode):
            waiting += reversed(_inside(member))


def _inside(directory: _Member) -> list[_Member]:
    """The members of a directory, by name."""
    base = "" if directory.inside == "/" else directory.inside
    try:
        with os.scandir(directory.source) as entries:
            return [
                _Member(entry.path, f"{base}/{entry.name}", entry.stat(follow_symlinks=False))
                for entry in sorted(entries, key=lambda entry: entry.name)
            ]
    except OSError as error:
        raise _unreadable(directory.source, error) from None


def _fits(member: _Member, moved: Moved) -> bool:
    mode = member.status.st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
        return True
    moved.skip(member.source, "neither a file, a directory nor a link")
    return False


class _Upload:
    def __init__(
        self, files: GuestFiles, who: Cred, moved: Moved, progress: Progress | None, total: int
    ) -> None:
        self._files = files
        self._who = who
        self._moved = moved
        self._progress = progress
        self._total = total

    async def directory(self, member: _Member) -> None:
        mode = stat.S_IMODE(member.status.st_mode) & 0o777 | 0o700
        await self._files.mkdir(member.inside, self._who, mode=mode, parents=True)
        self._moved.members += 1

    async def directory_mode(self, member: _Member) -> None:
        mode = stat.S_IMODE(member.status.st_mode) & 0o777
        if mode & 0o700 != 0o700:
            await self._files.chmod(member.inside, self._who, mode)

    async def member(self, member: _Member) -> None:
        if stat.S_ISLNK(member.status.st_mode):
            await self._link(member)
        else:
            mode = stat.S_IMODE(member.status.st_mode) & 0o777
            content = self._content(member.source)
            await self._files.write(member.inside, self._who, content, mode=mode)
        self._moved.members += 1

    async def _link(self, member: _Member) -> None:
        target = await asyncio.to_thread(os.readlink, os.fsencode(member.source))
        try:
            await self._files.symlink(target, member.inside, self._who)
        except PathExistsError:
            await self._files.remove(member.inside, self._who)
            await self._files.symlink(target, member.inside, self._who)

    async def _content(self, source: str) -> AsyncIterator[bytes]:
        number = await _open(source)
        try:
            while chunk := await _read(source, number):
                yield chunk
                self._moved.bytes += len(chunk)
                if self._progress is not None:
                    self._progress(self._moved.bytes, self._total)
        finally:
            os.close(number)


async def _open(source: str) -> int:
    """A descriptor of a file of the host; a cancellation meanwhile leaves none open."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    opening = asyncio.ensure_future(asyncio.to_thread(os.open, source, flags))
    try:
        return await asyncio.shield(opening)
    except OSError as error:
        raise _unreadable(source, error) from None
    except asyncio.CancelledError:
        opening.add_done_callback(_close_opened)
        raise


async def _read(source: str, number: int) -> bytes:
    """To its end: a descriptor that is closed while it is read may be another file's by then."""
    try:
        return await finish(asyncio.to_thread(os.read, number, _CHUNK))
    except OSError as error:
        raise _unreadable(source, error) from None


def _close_opened(opening: "asyncio.Future[int]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())
