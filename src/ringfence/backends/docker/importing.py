"""Images from files: OCI layouts, Docker's archives, root file systems."""

from __future__ import annotations

import asyncio
import contextlib
import json
import posixpath
import tarfile
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ringfence.backends.docker import stored as images
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.messages import LONGEST, messages
from ringfence.backends.docker.stored import Stored
from ringfence.backends.finish import finish
from ringfence.digest import Digest
from ringfence.errors import ImageError, ImageNotFoundError, SandboxError
from ringfence.images import context as contexts
from ringfence.images import layouts
from ringfence.images.tars import Tar

_MANIFEST = "manifest.json"
_LAYOUT = "oci-layout"
_MOST_MEMBERS = 100_000
"""Of Docker's archive, which has a few for each layer."""
_MOST_HEADERS = 64 * 2**20
"""Bytes of all of these, which are held."""
_UNREADABLE = (
    tarfile.TarError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
)
"""What a file that is none, or a hostile one, raises where it is read as Docker's archive."""


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
    expected = (manifest.config.digest, manifest.descriptor.digest)
    try:
        stored = await images.inspect(engine, str(expected[0]))
    except ImageNotFoundError:  # in containerd's store the manifest's digest is the id
        stored = await _found(engine, str(expected[1]))
    if stored.id not in expected:
        raise ImageError(
            f"{path}: expected the id {expected[0]}, the daemon has {stored.id}", op="import"
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
    architecture = str(version.get("Arch") or "amd64")
    manifest = await asyncio.to_thread(layouts.find, path, name, architecture=architecture)
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
    there = await _is_there(engine, image, image)
    await _send(engine, body, seconds)
    try:
        stored = await _loaded(engine, image, names)
        if tag is not None:
            repository, _, label = tag.rpartition(":")
            await images.tag(engine, stored.id, repository, label)
        return await images.inspect(engine, stored.id)
    except BaseException:
        if not there:
            await finish(_take_out(engine, image, names | ({tag} if tag else set())))
        raise


async def _loaded(engine: Engine, image: str, names: Collection[str]) -> Stored:
    """What an archive's image has become: in containerd's store its id is another, and only its
    name tells."""
    with contextlib.suppress(ImageNotFoundError):
        return await images.inspect(engine, image)
    if not names:
        raise ImageError(
            "the archive has no name for its image, without which it cannot be found in"
            " containerd's image store: give it one (docker save NAME), or import an OCI layout",
            op="import",
        )
    return await _found(engine, min(names))


async def _is_there(engine: Engine, name: str, image: str) -> bool:
    """Whether `image` is on the daemon under that name, or id."""
    try:
        return (await images.inspect(engine, name)).id == image
    except ImageNotFoundError:
        return False


async def _take_out(engine: Engine, image: str, names: Collection[str]) -> None:
    """Remove an image that was just loaded, unless others have named or used it meanwhile."""
    with contextlib.suppress(SandboxError):
        for name in names:
            if await _is_there(engine, name, image):
                await engine.request("image", "DELETE", ("images", name), {"noprune": True})
        if not (await images.inspect(engine, image)).tags:
            await engine.request("image", "DELETE", ("images", image), {"noprune": True})


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
        with Tar.open(fileobj=body, mode="r:*") as archive:
            told = Counter(map(posixpath.basename, _member_names(archive)))
            if told[_LAYOUT]:  # an engine may go by that, wherever it unpacks it to
                raise ValueError("it says that it is an OCI layout, too")
            with _only(archive, told, _MANIFEST) as listing:
                entries = json.loads(listing.read(LONGEST))
            found: dict[str, set[str]] = {}
            for entry in entries:
                _check_keys(entry)
                with _only(archive, told, entry["Config"]) as config:
                    names = found.setdefault(str(Digest.from_reader(config)), set())
                names.update(map(str, entry.get("RepoTags") or ()))
    except _UNREADABLE as error:
        raise ImageError(f"the archive cannot be read: {error}", op="import") from None
    return found


def _member_names(archive: Tar) -> Iterator[str]:
    """Of all members, which are held. ValueError beyond _MOST_MEMBERS, and _MOST_HEADERS."""
    for count, member in enumerate(archive, start=1):
        if count > _MOST_MEMBERS:
            raise ValueError(f"it has over {_MOST_MEMBERS} members")
        if archive.header_bytes > _MOST_HEADERS:
            raise ValueError(f"it has over {_MOST_HEADERS} bytes of headers")
        yield member.name


def _only(archive: tarfile.TarFile, told: Mapping[str, int], name: str) -> IO[bytes]:
    """A file of the archive that no other member can be in the place of. ValueError, KeyError."""
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is no name")
    times = told[posixpath.basename(name)]
    if times > 1:
        raise ValueError(f"it has {posixpath.basename(name)} {times} times")
    member = archive.getmember(name)
    is_file = member.isreg() and not member.issparse()
    file = archive.extractfile(member) if is_file else None
    if file is None:
        raise ValueError(f"its {name} is no file")
    return file


def _check_keys(entry: Mapping[str, Any]) -> None:
    """ValueError for one that only an engine would read: it takes "repotags" for "RepoTags"."""
    for key in entry:
        for known in ("Config", "RepoTags"):
            if key != known and key.casefold() == known.casefold():
                raise ValueError(f"its {_MANIFEST} has {key!r} in place of {known!r}")
