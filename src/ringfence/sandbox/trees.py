"""Files and trees between the host and a sandbox."""

import asyncio
import os
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from ringfence.backends.finish import finish
from ringfence.digest import Digest
from ringfence.errors import FileError, InvalidSpecError, PathExistsError, PathNotFoundError
from ringfence.events import FilesMoved
from ringfence.guest.files import Files as GuestFiles
from ringfence.guest.protocol import Cred, Stat
from ringfence.guest.walks import Entry
from ringfence.sandbox.context import Context
from ringfence.sandbox.extract import Caps, Extractor, beside, relative
from ringfence.sandbox.progress import Progress

DOWNLOAD_CAPS = Caps()
_AT_ONCE = 8
_CHUNK = 256 * 1024
_SKIPPED_KEPT = 1000

T = TypeVar("T")


@dataclass(slots=True)
class Moved:
    """What a transfer moved. members: directories, files and links. skipped: paths that were left
    out, the first 1000 of them, and why; skipped_total: how many. digest: of the blob that a
    download into a store made."""

    members: int = 0
    bytes: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    skipped_total: int = 0
    digest: Digest | None = None

    def skip(self, path: str, why: str) -> None:
        """`path` was left out."""
        self.skipped_total += 1
        if len(self.skipped) < _SKIPPED_KEPT:
            self.skipped.append((path, why))


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
    await _each([m for m in members if not stat.S_ISDIR(m.status.st_mode)], upload_.member)
    for member in reversed(directories):
        await upload_.directory_mode(member)
    context.bus.publish(
        FilesMoved(
            sandbox_id=context.id,
            direction="upload",
            path=destination,
            members=moved.members,
            bytes=moved.bytes,
        )
    )
    return moved


def _survey(source: str, destination: str) -> tuple[list[_Member], Moved]:
    """Everything of a source that can go in, a directory before what is in it."""
    moved = Moved()
    try:
        top = _Member(source, destination.rstrip("/") or "/", os.stat(source))  # noqa: PTH116
    except OSError as error:
        raise _unreadable(source, error) from None
    return [member for member in _below(top) if _fits(member, moved)], moved


def _unreadable(path: str, error: OSError) -> InvalidSpecError:
    return InvalidSpecError(
        f"upload: {path!r} cannot be read: {error.strerror}",
        op="files.upload",
        context={"fields": ["source"], "path": path},
    )


def _below(top: _Member) -> Iterator[_Member]:
    yield top
    if not stat.S_ISDIR(top.status.st_mode):
        return
    try:
        with os.scandir(top.source) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(top.source, error) from None
    base = "" if top.inside == "/" else top.inside
    for entry in found:
        status = entry.stat(follow_symlinks=False)
        yield from _below(_Member(entry.path, f"{base}/{entry.name}", status))


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
            while chunk := await asyncio.to_thread(os.read, number, _CHUNK):
                yield chunk
                self._moved.bytes += len(chunk)
                if self._progress is not None:
                    self._progress(self._moved.bytes, self._total)
        finally:
            os.close(number)


async def _open(source: str) -> int:
    """A descriptor of a file of the host; a cancellation meanwhile leaves none open."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    opening = asyncio.ensure_future(asyncio.to_thread(os.open, source, flags))
    try:
        return await asyncio.shield(opening)
    except OSError as error:
        raise _unreadable(source, error) from None
    except asyncio.CancelledError:
        opening.add_done_callback(_close_opened)
        raise


def _close_opened(opening: "asyncio.Future[int]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())


async def download(
    context: Context,
    source: str,
    destination: str,
    who: Cred,
    *,
    caps: Caps,
    progress: Progress | None,
) -> Moved:
    """See `Files.download`."""
    parent, whole = beside(destination)
    found = await context.session.files.stat(source, who)
    place = f"{parent}/.ringfence-{secrets.token_hex(8)}"
    try:
        await asyncio.to_thread(_make_place, place, whole)
        with Extractor(place, caps) as extractor:
            work = _Download(context.session.files, who, extractor, progress)
            moved = await work.run(source, found)
        made = os.path.join(place, _TOP)  # noqa: PTH118
        await asyncio.to_thread(_put, made, whole)
    finally:
        await finish(asyncio.to_thread(shutil.rmtree, place, ignore_errors=True))
    context.bus.publish(
        FilesMoved(
            sandbox_id=context.id,
            direction="download",
            path=source,
            members=moved.members,
            bytes=moved.bytes,
        )
    )
    return moved


_TOP = "content"


def _make_place(place: str, whole: str) -> None:
    """A fresh directory `place` beside `whole`, which must not exist."""
    if os.path.lexists(whole):
        raise PathExistsError(
            f"download: {whole!r} is there already: name a new path",
            op="files.download",
            context={"path": whole},
        )
    try:
        os.mkdir(place, 0o700)  # noqa: PTH102
    except OSError as error:
        raise InvalidSpecError(
            f"download: nothing can be made beside {whole!r}: {error.strerror}",
            op="files.download",
            context={"fields": ["destination"]},
        ) from None


def _put(made: str, whole: str) -> None:
    """Move what was made to its name, replacing nothing."""
    try:
        if os.path.lexists(whole):
            raise FileExistsError(17, "File exists")
        os.rename(made, whole)  # noqa: PTH104
    except OSError as error:
        raise PathExistsError(
            f"download: {whole!r} cannot be made: {error.strerror}",
            op="files.download",
            context={"path": whole},
        ) from None


class _Download:
    def __init__(
        self, files: GuestFiles, who: Cred, extractor: Extractor, progress: Progress | None
    ) -> None:
        self._files = files
        self._who = who
        self._extractor = extractor
        self._progress = progress
        self._total: int | None = None
        self._moved = Moved()

    async def run(self, source: str, found: Stat) -> Moved:
        top = _TOP.encode()
        if stat.S_ISDIR(found.mode):
            await self._tree(os.fsencode(source), top, found)
        elif stat.S_ISREG(found.mode):
            self._total = found.size
            self._extractor.expect(top)
            await self._file(os.fsencode(source), top, found)
        else:
            raise FileError(
                f"download: {source!r} is neither a file nor a directory",
                op="files.download",
                context={"path": source},
            )
        self._extractor.make_links()
        self._moved.members = self._extractor.members - self._moved.skipped_total
        self._moved.bytes = self._extractor.bytes
        return self._moved

    async def _tree(self, source: bytes, top: bytes, found: Stat) -> None:
        self._extractor.directory(top)
        directories: list[tuple[bytes, int]] = [(top, found.mode)]
        files: list[Entry] = []
        walk = self._files.walk(source, self._who)
        try:
            async for batch in walk:
                for entry in batch:
                    await self._enter(source, top, entry, directories, files)
        finally:
            await walk.aclose()
        self._total = sum(entry.stat.size for entry in files)

        async def fetch(entry: Entry) -> None:
            name = relative(entry.name)
            await self._file(source + b"/" + name, top + b"/" + name, entry.stat)

        await _each(files, fetch)
        for path, mode in directories:
            self._extractor.directory_mode(path, mode)

    async def _enter(
        self,
        source: bytes,
        top: bytes,
        entry: Entry,
        directories: list[tuple[bytes, int]],
        files: list[Entry],
    ) -> None:
        name = relative(entry.name)
        path, mode = top + b"/" + name, entry.stat.mode
        if stat.S_ISDIR(mode):
            self._extractor.directory(path)
            directories.append((path, mode))
        elif stat.S_ISREG(mode):
            self._extractor.expect(path)
            files.append(entry)
        elif stat.S_ISLNK(mode):
            target = await self._files.readlink(source + b"/" + name, self._who)
            if not self._extractor.link(path, target):
                self._moved.skip(os.fsdecode(name), "a link that leads out of the tree")
        else:
            self._extractor.expect(path)
            self._moved.skip(os.fsdecode(name), "neither a file, a directory nor a link")

    async def _file(self, source: bytes, path: bytes, found: Stat) -> None:
        number = self._extractor.file(path, found.mode, found.blocks * 512)
        try:
            async with self._files.open_read(source, self._who) as reader:
                async for chunk in reader:
                    self._extractor.count(path, len(chunk))
                    _write_all(number, chunk)
                    if self._progress is not None:
                        self._progress(self._extractor.bytes, self._total)
        except PathNotFoundError:
            self._moved.skip(os.fsdecode(source), "it went away meanwhile")
        finally:
            os.close(number)


def _write_all(number: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(number, view) :]


async def _each(items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """`work` on every item, a few at a time; the first error ends it, as does cancellation."""
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            await work(item)

    tasks = [asyncio.create_task(worker()) for _ in range(_AT_ONCE)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
