"""From a file or a tree in a sandbox to one on the host, which never trusts what it gets."""

import asyncio
import errno
import os
import secrets
import shutil
import stat

from ringfence.backends.finish import finish
from ringfence.errors import (
    FileError,
    InvalidSpecError,
    PathExistsError,
    PathNotFoundError,
    ResourceExhaustedError,
    SandboxError,
)
from ringfence.guest.files import Files as GuestFiles
from ringfence.guest.protocol import Cred, Stat
from ringfence.guest.walks import Entry
from ringfence.sandbox.context import Context
from ringfence.sandbox.extract import Caps, Extractor, beside, relative
from ringfence.sandbox.moved import Moved, each, tell
from ringfence.sandbox.progress import Progress

_TOP = "content"
_WENT_AWAY = "it went away meanwhile"


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
        await finish(asyncio.to_thread(_make_place, place, whole))
        with Extractor(place, caps) as extractor:
            work = _Download(context.session.files, who, extractor, progress)
            moved = await work.run(source, found)
        await _appear(f"{place}/{_TOP}", whole)
    except OSError as error:
        raise _named(error, whole) from None
    finally:
        await finish(asyncio.to_thread(shutil.rmtree, place, ignore_errors=True))
    tell(context, "download", source, moved)
    return moved


def _make_place(place: str, whole: str) -> None:
    """A fresh directory `place` beside `whole`, which must not exist."""
    if os.path.lexists(whole):
        raise PathExistsError(
            f"download: {whole!r} is there already: name a new path",
            op="files.download",
            context={"path": whole},
        )
    why = "its name holds a NUL byte" if "\0" in whole else None
    try:
        if why is None:
            os.mkdir(place, 0o700)  # noqa: PTH102
    except OSError as error:
        why = error.strerror
    if why is not None:
        raise InvalidSpecError(
            f"download: nothing can be made beside {whole!r}: {why}",
            op="files.download",
            context={"fields": ["destination"]},
        )


def _named(error: OSError, whole: str) -> OSError | SandboxError:
    """A full disk of the host is ResourceExhaustedError; all else is what it is."""
    if isinstance(error, SandboxError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return ResourceExhaustedError(
        f"download: {error.strerror} beside {whole!r}: free some there, or name another place",
        op="files.download",
        context={"path": whole, "errno": error.errno},
    )


async def _appear(made: str, whole: str) -> None:
    """Let what was made have its name, or, when that is cancelled meanwhile, not."""
    putting = asyncio.ensure_future(asyncio.to_thread(_put, made, whole))
    try:
        await finish(putting)
    except asyncio.CancelledError:
        if not putting.cancelled() and putting.exception() is None:
            await finish(asyncio.to_thread(os.rename, whole, made))
        raise


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

        await each(files, fetch)
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
            await self._link(source + b"/" + name, path, os.fsdecode(name))
        else:
            self._extractor.expect(path)
            self._moved.skip(os.fsdecode(name), "neither a file, a directory nor a link")

    async def _link(self, source: bytes, path: bytes, name: str) -> None:
        try:
            target = await self._files.readlink(source, self._who)
        except PathNotFoundError:
            self._extractor.expect(path)
            self._moved.skip(name, _WENT_AWAY)
            return
        if not self._extractor.link(path, target):
            self._moved.skip(name, "a link that leads out of the tree")

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
            self._moved.skip(os.fsdecode(source), _WENT_AWAY)
        finally:
            os.close(number)


def _write_all(number: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(number, view) :]
