"""From an image on the daemon to one in a content store, every layer verified."""

from __future__ import annotations

import asyncio
import json
import posixpath
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import IO, Any

from ringfence.backends.docker.engine import Engine
from ringfence.digest import Descriptor, Digest, DigestError
from ringfence.digest.store import QuotaExceeded, Store
from ringfence.digest.store.manifest import LARGEST, LAYER, put_image
from ringfence.errors import ImageError, ResourceExhaustedError

_PIECE = 8 * 1024 * 1024
_LINKS = 8

Rewrite = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From an image's configuration to the one that is to be kept."""


async def export(
    engine: Engine,
    image: str,
    store: Store,
    *,
    seconds: float,
    rewrite: Rewrite | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Descriptor:
    """Put an image into a store; its manifest, which has no name there yet.

    The configuration stays byte by byte, so that importing it again gives the same id, unless it
    is rewritten. The caller holds `store.composing()`. ImageError, ImageNotFoundError,
    ResourceExhaustedError, DeadlineExceededError. Cancellation leaves unnamed blobs at most.
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
        return await asyncio.to_thread(_kept, body, store, rewrite, annotations)


def _kept(
    body: IO[bytes],
    store: Store,
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
                _layer(archive, name, digest, store)
                for name, digest in zip(entry["Layers"], diffs, strict=True)
            ]
        kept = config if rewrite is None else rewrite(about)
        return put_image(store, kept, layers, annotations)
    except QuotaExceeded as error:
        raise ResourceExhaustedError(f"export: {error}", op="export") from None
    except (DigestError, tarfile.TarError, KeyError, TypeError, ValueError) as error:
        raise ImageError(
            f"export: what the daemon sent cannot be used: {error}", op="export"
        ) from None


def _layer(archive: tarfile.TarFile, name: str, digest: Digest, store: Store) -> Descriptor:
    member = _member(archive, name)
    if digest not in store:
        source = archive.extractfile(member)
        if source is None:
            raise ValueError(f"{name} is no file")
        store.put(source, expected=digest, size=member.size)
    return Descriptor(LAYER, digest, store.info(digest).size)


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
