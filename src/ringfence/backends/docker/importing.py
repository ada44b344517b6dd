"""Images from files: OCI layouts, Docker's archives, root file systems."""

from __future__ import annotations

import asyncio
import contextlib
import json
import posixpath
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ringfence.backends.docker import stored as images
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.messages import LONGEST, messages
from ringfence.backends.docker.stored import Stored
from ringfence.digest import Digest
from ringfence.errors import ImageError, ImageNotFoundError
from ringfence.images import context as contexts
from ringfence.images import layouts

_MANIFEST = "manifest.json"


async def import_(
    engine: Engine,
    path: Path,
    tag: str | None,
    *,
    name: str | None,
    changes: Sequence[str],
    seconds: float,
) -> Stored:
    """As `Supply.import_` says. tag: what to call it."""
    kind = await asyncio.to_thread(layouts.kind_of, path)
    with tempfile.TemporaryDirectory(prefix="ringfence-import-") as scratch:
        if kind == "oci-archive":
            await asyncio.to_thread(layouts.unpack, path, Path(scratch))
            path, kind = Path(scratch), "oci"
        with tempfile.TemporaryFile() as body:
            if kind == "oci":
                return await _from_layout(engine, path, body, name=name, tag=tag, seconds=seconds)
            if kind == "tree":
                await asyncio.to_thread(contexts.pack_tree, path, body)
                return await _of_tar(engine, body, tag, changes, seconds)
        with await asyncio.to_thread(path.open, "rb") as body:
            if kind == "rootfs":
                return await _of_tar(engine, body, tag, changes, seconds)
            return await _of_archive(engine, body, tag, seconds)


async def load_layout(
    engine: Engine,
    path: Path,
    manifest: layouts.Manifest,
    body: IO[bytes],
    *,
    tag: str | None = None,
    seconds: float,
) -> Stored:
    """Send one image of a layout to the daemon, by way of the empty file `body`. ImageError."""
    await asyncio.to_thread(layouts.archive, path, manifest, body, tag)
    await _send(engine, body, seconds)
    stored = await _found(engine, str(manifest.config.digest))
    if stored.id != manifest.config.digest:
        raise ImageError(
            f"{path}: expected the id {manifest.config.digest}, the daemon has {stored.id}",
            op="import",
        )
    return stored


async def _from_layout(
    engine: Engine,
    path: Path,
    body: IO[bytes],
    *,
    name: str | None,
    tag: str | None,
    seconds: float,
) -> Stored:
    version = await engine.get("version", "version")
    manifest = layouts.find(path, name, architecture=str(version.get("Arch") or "amd64"))
    return await load_layout(engine, path, manifest, body, tag=tag, seconds=seconds)


async def _of_tar(
    engine: Engine, body: IO[bytes], tag: str | None, changes: Sequence[str], seconds: float
) -> Stored:
    """The image of a root file system's tar."""
    repository, _, label = (tag or "").rpartition(":")
    query = {"fromSrc": "-", "repo": repository or None, "tag": label or None}
    body.seek(0)
    made = ""
    path = ("images", "create")
    # The Engine takes one query parameter for each change, or one with newlines between.
    query["changes"] = "\n".join(changes) or None
    async for message in messages(engine, "import", path, query, body, seconds=seconds):
        made = str(message.get("status") or made)
    return await _found(engine, made)


async def _of_archive(engine: Engine, body: IO[bytes], tag: str | None, seconds: float) -> Stored:
    """The one image in Docker's archive, which takes no name from another image but `tag`."""
    ids = await asyncio.to_thread(_names_in, body)
    if len(ids) != 1:
        raise ImageError(f"the archive holds {len(ids)} images instead of one", op="import")
    [(image, names)] = ids.items()
    for name in names - {tag}:
        await _check_free(engine, name, image)
    await _send(engine, body, seconds)
    stored = await _found(engine, image)
    if tag is not None:
        repository, _, label = tag.rpartition(":")
        await images.tag(engine, stored.id, repository, label)
    return await images.inspect(engine, stored.id)


async def _send(engine: Engine, body: IO[bytes], seconds: float) -> None:
    body.seek(0)
    async for _ in messages(
        engine, "import", ("images", "load"), {"quiet": True}, body, seconds=seconds
    ):
        pass


async def _found(engine: Engine, name: str) -> Stored:
    try:
        return await images.inspect(engine, name)
    except ImageNotFoundError:
        raise ImageError(f"the daemon did not keep {name or 'the image'}", op="import") from None


async def _check_free(engine: Engine, name: str, image: str) -> None:
    with contextlib.suppress(ImageNotFoundError):
        known = await images.inspect(engine, name)
        if known.id != image:
            raise ImageError(
                f"the archive would call its image {name}, which is another one's name here: remove"
                " that, or import it by that name",
                op="import",
            )


def _names_in(body: IO[bytes]) -> dict[str, set[str]]:
    """The names of the images in Docker's archive, by id: the digests of their configurations."""
    body.seek(0)
    try:
        with tarfile.open(fileobj=body, mode="r:*") as archive:
            said = [name for name in archive.getnames() if posixpath.basename(name) == _MANIFEST]
            if len(said) > 1:
                raise ValueError(f"it says what it is {len(said)} times")
            listing = archive.extractfile(_MANIFEST)
            entries = json.loads(listing.read(LONGEST)) if listing else []
            found: dict[str, set[str]] = {}
            for entry in entries:
                config = archive.extractfile(entry["Config"])
                if config is not None:
                    names = found.setdefault(str(Digest.from_reader(config)), set())
                    names.update(map(str, entry.get("RepoTags") or ()))
    except (tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"the archive cannot be read: {error}", op="import") from None
    return found
