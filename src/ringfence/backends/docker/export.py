"""From an image on the daemon to one in a content store, every layer verified."""

from __future__ import annotations

import asyncio
import gzip
import json
import posixpath
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import IO, Any

from ringfence.backends.docker.engine import Engine
from ringfence.backends.finish import finish
from ringfence.digest import Descriptor, Digest, DigestError
from ringfence.digest.store import QuotaExceeded, Store, StoreError
from ringfence.digest.store.manifest import LARGEST, LAYER, put_image
from ringfence.errors import ImageError, ResourceExhaustedError

_PIECE = 8 * 1024 * 1024
_LINKS = 8
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_UNUSABLE = (
    DigestError,
    tarfile.TarError,
    KeyError,
    TypeError,
    ValueError,
    EOFError,
    gzip.BadGzipFile,
    zlib.error,
)
"""What an archive raises that is none, or whose layers are not what its configuration says."""

Rewrite = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From an image's configuration to the one that is to be kept."""


async def export(
    engine: Engine,
    image: str,
    store: Store,
    *,
    seconds: float,
    made: list[Digest],
    rewrite: Rewrite | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Descriptor:
    """Put an image into a store; its manifest, which has no name there yet.

    The configuration stays byte by byte, so that importing it again gives the same id, unless it
    is rewritten. The caller holds `store.composing()`. made: is told what was not in the store
    before, for the caller to discard after an error or a cancellation. ImageError,
    ImageNotFoundError, ResourceExhaustedError, DeadlineExceededError.
    """
    with tempfile.TemporaryFile() as body:
        chunks = engine.stream("export", "GET", ("images", image, "get"), {}, seconds=seconds)
        waiting = bytearray()
        async with aclosing(chunks):
            async for chunk in chunks:
                waiting += chunk
                if len(waiting) >= _PIECE:
                    await asyncio.to_thread(body.write, bytes(waiting))
                    waiting.clear()
        body.write(waiting)
        body.seek(0)
        return await _ended_with(_Into(store, made), body, rewrite, annotations)


async def _ended_with(
    into: _Into,
    body: IO[bytes],
    rewrite: Rewrite | None,
    annotations: Mapping[str, str] | None,
) -> Descriptor:
    """`_kept` in a thread of its own, which a cancellation ends before it is raised."""
    task = asyncio.ensure_future(asyncio.to_thread(_kept, body, into, rewrite, annotations))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        into.ended.set()
        await finish(_over(task))
        raise


async def _over(task: asyncio.Task[Descriptor]) -> None:
    await asyncio.wait([task])
    task.exception()


async def discard(store: Store, made: list[Digest]) -> bool:
    """Remove what an image that failed had put; whether all of it is gone: others who put images
    may need it, and are not waited for. Cancellation does not end it."""
    return await finish(asyncio.to_thread(_discarded, store, made))


def _discarded(store: Store, made: list[Digest]) -> bool:
    try:
        for digest in reversed(made):
            store.discard(digest, wait=False)
    except (StoreError, OSError):
        return False
    return True


class _EndedError(Exception):
    """Nobody waits for the image any more."""


class _Into:
    """Where blobs go. made: those that were not there before. ended: set to put no more."""

    def __init__(self, store: Store, made: list[Digest]) -> None:
        self.store = store
        self.made = made
        self.ended = threading.Event()

    def put(self, source: IO[bytes] | gzip.GzipFile, digest: Digest, size: int | None) -> None:
        """One layer, unless it is there. size: None where that is not known."""
        if digest not in self.store:
            self.made.append(digest)
            self.store.put(_Source(source, self.ended), expected=digest, size=size)


class _Source:
    def __init__(self, source: IO[bytes] | gzip.GzipFile, ended: threading.Event) -> None:
        self._source = source
        self._ended = ended

    def read(self, size: int = -1, /) -> bytes:
        """As the stream that it is over, until it has ended."""
        if self._ended.is_set():
            raise _EndedError
        return self._source.read(size)


def _kept(
    body: IO[bytes],
    into: _Into,
    rewrite: Rewrite | None,
    annotations: Mapping[str, str] | None,
) -> Descriptor:
    try:
        with tarfile.open(fileobj=body, mode="r:") as archive:
            (entry,) = json.loads(_document(archive, "manifest.json"))
            config = _document(archive, entry["Config"])
            about = json.loads(config)
            diffs = [Digest.parse(text) for text in about["rootfs"]["diff_ids"]]
            layers = [
                _layer(archive, name, digest, into)
                for name, digest in zip(entry["Layers"], diffs, strict=True)
            ]
        kept = config if rewrite is None else rewrite(about)
        return put_image(into.store, kept, layers, annotations, into.made)
    except QuotaExceeded as error:
        raise ResourceExhaustedError(f"export: {error}", op="export") from None
    except _UNUSABLE as error:
        raise ImageError(
            f"export: what the daemon sent cannot be used: {error}", op="export"
        ) from None


def _layer(archive: tarfile.TarFile, name: str, digest: Digest, into: _Into) -> Descriptor:
    member = _member(archive, name)
    source = archive.extractfile(member)
    if source is None:
        raise ValueError(f"{name} is no file")
    begin = source.read(len(_ZSTD))  # containerd's image store keeps them compressed
    source.seek(0)
    if begin == _ZSTD:
        raise ImageError(
            f"export: layer {name} of the image is compressed with zstd, which is not unpacked"
            " here: build it with `--output type=image,compression=gzip,force-compression=true`, or"
            " pull and export it on an Engine without containerd's image store",
            op="export",
        )
    if begin.startswith(_GZIP):
        into.put(gzip.GzipFile(fileobj=source), digest, None)
    else:
        into.put(source, digest, member.size)
    return Descriptor(LAYER, digest, into.store.info(digest).size)


def _document(archive: tarfile.TarFile, name: str) -> bytes:
    member = _member(archive, name)
    source = archive.extractfile(member)
    if source is None or member.size > LARGEST:
        raise ValueError(f"{name} is no document")
    return source.read()


def _member(archive: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    """The file of that name; engines write a layer that comes twice as a link to the first."""
    for _ in range(_LINKS):
        member = archive.getmember(name)
        if member.isreg():
            return member
        below = posixpath.dirname(name) if member.issym() else ""
        name = posixpath.normpath(posixpath.join(below, member.linkname))
    raise ValueError(f"{name} is no file")
