"""Images in files: OCI image layouts, archives, root file systems; and one into another."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from ringfence.digest import Descriptor, Digest, DigestError, VerifyingReader
from ringfence.errors import ImageError
from ringfence.images.reference import Reference
from ringfence.images.tars import Tar

try:
    from lzma import LZMAError
except ImportError:  # an interpreter that was built without it
    LZMAError = zlib.error  # type: ignore[misc,assignment]

_NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"
_LARGEST_DOCUMENT = 16 * 1024 * 1024
_TELLING = ("oci-layout", "manifest.json")
"""What tells, at the top of an archive, which kind it is."""
MOST_MEMBERS = 10_000_000
"""Of an archive, far more than the files of any image."""
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


_NO_ARCHIVE = (
    tarfile.TarError,
    EOFError,
    zlib.error,
    LZMAError,
    RecursionError,
    ValueError,
    LookupError,
    ArithmeticError,
)
"""What a file that is none, or a hostile one, raises where it is read as a tar."""


class Manifest(NamedTuple):
    """One image of a layout. config, layers: verified by `archive`, not before."""

    descriptor: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]


def kind_of(path: Path) -> str:
    """What a path holds: "oci" (layout), "tree" (directory), "docker" or "oci-archive" (tar files),
    "rootfs" (any other tar). ImageError for what is none of these."""
    if path.is_dir():
        return "oci" if (path / "oci-layout").is_file() else "tree"
    try:
        with open_regular(path) as stream, Tar.open(fileobj=stream) as archive:
            found = (member.name.removeprefix("./") for member in _members(archive))
            names = {name for name in found if name in _TELLING}
    except _NO_ARCHIVE:
        raise ImageError(f"{path} is no tar archive, and no directory", op="import") from None
    except OSError as error:
        text = f"{path} is no tar archive: {error.strerror or 'it is cut short'}"
        raise ImageError(text, op="import") from None
    if "oci-layout" in names:
        return "oci-archive"
    return "docker" if "manifest.json" in names else "rootfs"


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of an archive, none of which is held. ImageError beyond MOST_MEMBERS."""
    count = 0
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined] # it has no other way
        count += 1
        if count > MOST_MEMBERS:
            raise ImageError(f"the archive has over {MOST_MEMBERS} members", op="import")
        yield member


def find(layout: Path, name: str | None = None, *, architecture: str = "amd64") -> Manifest:
    """The image called `name`, or whose manifest has that digest, in a layout; without a name, the
    only one there. Of several, the only one that says it is for this machine.

    Everything that is read is verified. ImageError when it is missing, ambiguous or damaged.
    """
    index = _load(layout / "index.json")
    entries = _descriptors(index.get("manifests"))
    if name is not None:
        known = [entry for entry in entries if entry.annotations.get(_NAME) == name]
        entries = known or [entry for entry in entries if entry.digest == name][:1]
    if len(entries) > 1:
        fitting = _fitting(index, architecture)
        entries = [entry for entry in entries if entry in fitting] or entries
    if len(entries) != 1:
        wanted = "one image" if name is None else f"one image called {name!r}"
        raise ImageError(f"{layout} holds {len(entries)} instead of {wanted}", op="import")
    (entry,) = entries
    document = document_at(layout, entry)
    if _is_index(entry, document):
        entry = _for_machine(layout, document, architecture)
        document = document_at(layout, entry)
    return _manifest(entry, document)


def read(layout: Path, descriptor: Descriptor) -> Manifest:
    """The image of a manifest in a layout, whether it has a name there or not. ImageError."""
    return _manifest(descriptor, document_at(layout, descriptor))


def _is_index(entry: Descriptor, document: Mapping[str, Any]) -> bool:
    """Whether a document is an index, and no image's manifest. ImageError for what others could
    take for the other one: its digest would name two images."""
    listed = "manifests" in document
    has_both = listed and ("config" in document or "layers" in document)
    others = _MANIFESTS if listed else _INDEXES
    if has_both or entry.media_type in others or document.get("mediaType") in others:
        text = f"{entry.digest}: it is not clear whether it is a manifest or an index"
        raise ImageError(text, op="import")
    return listed


def _manifest(entry: Descriptor, document: Mapping[str, Any]) -> Manifest:
    if _is_index(entry, document):
        raise ImageError(f"{entry.digest} is an index, no image's manifest", op="import")
    try:
        config = Descriptor.from_dict(document["config"])
    except (KeyError, DigestError) as error:
        raise ImageError(f"{entry.digest} is no image's manifest: {error!r}", op="import") from None
    return Manifest(entry, config, tuple(_descriptors(document.get("layers"))))


def archive(layout: Path, manifest: Manifest, into: IO[bytes], tag: str | None) -> None:
    """Write an image as what `docker load` takes, every byte verified: Docker's archive, and the
    same blobs as an OCI layout, by which an Engine goes that keeps images in containerd's store.

    ImageError when a blob is missing or is not what its descriptor says.
    """
    whole = manifest.descriptor
    blobs = {_blob(each): each for each in (manifest.config, *manifest.layers, whole)}
    listing = {
        "Config": _blob(manifest.config),
        "RepoTags": [tag] if tag else None,
        "Layers": [_blob(layer) for layer in manifest.layers],
    }
    entry = Descriptor(whole.media_type, whole.digest, whole.size).to_dict()
    if tag:
        entry["annotations"] = {_FULL_NAME: str(Reference.parse_familiar(tag))}
    documents = {
        "manifest.json": [listing],
        "index.json": {"schemaVersion": 2, "manifests": [entry]},
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
    }
    with tarfile.open(fileobj=into, mode="w") as out:
        for name, blob in blobs.items():
            _member(out, layout, blob, name)
        for name, document in documents.items():
            data = json.dumps(document).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))


def _blob(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.encoded}"


def unpack(archive_path: Path, into: Path) -> None:
    """Take an OCI layout out of a tar: plain files of the layout's own names only."""
    with open_regular(archive_path) as stream, Tar.open(fileobj=stream) as archive_file:
        for member in _members(archive_file):
            name = member.name.removeprefix("./")
            parts = name.split("/")
            if (
                not member.isreg()
                or member.issparse()
                or not (
                    name in ("oci-layout", "index.json")
                    or (len(parts) == 3 and parts[0] == "blobs" and _is_blob(parts[1], parts[2]))
                )
            ):
                continue
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            source = archive_file.extractfile(member)
            if source is None:
                continue
            with source, target.open("wb") as out:
                while data := source.read(256 * 1024):
                    out.write(data)


def document_at(layout: Path, descriptor: Descriptor) -> dict[str, Any]:
    """The JSON object that a descriptor names, verified. ImageError."""
    if descriptor.size > _LARGEST_DOCUMENT:
        raise ImageError(f"{descriptor.digest} is too large for a manifest", op="import")
    try:
        with _open(layout, descriptor) as reader:
            data = json.loads(reader.readall())
    except (OSError, ValueError, RecursionError) as error:
        raise ImageError(f"{descriptor.digest}: {error}", op="import") from None
    if not isinstance(data, dict):
        raise ImageError(f"{descriptor.digest} is no JSON object", op="import")
    return data


def _for_machine(layout: Path, index: Mapping[str, Any], architecture: str) -> Descriptor:
    for entry in _fitting(index, architecture):
        return entry
    raise ImageError(f"{layout} has nothing for linux/{architecture}", op="import")


def _fitting(index: Mapping[str, Any], architecture: str) -> list[Descriptor]:
    """The entries of an index that say they are for this machine."""
    wanted = {"os": "linux", "architecture": architecture}.items()
    raw = index.get("manifests") or ()
    return [
        entry
        for entry, data in zip(_descriptors(raw), raw, strict=True)
        if isinstance(data.get("platform"), dict) and wanted <= data["platform"].items()
    ]


def _member(out: tarfile.TarFile, layout: Path, descriptor: Descriptor, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.size = descriptor.size
    try:
        with _open(layout, descriptor) as reader:
            out.addfile(info, io.BufferedReader(reader, 256 * 1024))
            reader.verify()
    except DigestError as error:
        raise ImageError(f"{layout} is damaged: {error}", op="import") from None
    except OSError as error:
        raise ImageError(
            f"{layout} is damaged: {descriptor.digest}: {error}", op="import"
        ) from None


def _open(layout: Path, descriptor: Descriptor) -> VerifyingReader:
    digest = descriptor.digest
    try:
        stream = open_regular(layout / "blobs" / digest.algorithm / digest.encoded)
    except FileNotFoundError:
        raise ImageError(f"{layout} lacks {digest}", op="import") from None
    except OSError as error:
        raise ImageError(f"{layout}: {digest}: {error.strerror}", op="import") from None
    try:
        return VerifyingReader(stream, digest, descriptor.size)
    except DigestError as error:
        stream.close()
        raise ImageError(str(error), op="import") from None


def open_regular(path: Path) -> io.FileIO:
    """A regular file for reading, without waiting for whoever writes to a FIFO. OSError."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return io.FileIO(number)


def _descriptors(entries: Any) -> list[Descriptor]:
    try:
        return [Descriptor.from_dict(entry) for entry in entries or ()]
    except (DigestError, TypeError) as error:
        raise ImageError(f"a descriptor cannot be used: {error}", op="import") from None


def _load(path: Path) -> dict[str, Any]:
    try:
        with open_regular(path) as stream:
            content = stream.read(_LARGEST_DOCUMENT + 1)
        if len(content) > _LARGEST_DOCUMENT:
            raise ImageError(f"{path} is too large for an index", op="import")
        data = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise ImageError(f"{path}: {error}", op="import") from None
    if not isinstance(data, dict):
        raise ImageError(f"{path} is no JSON object", op="import")
    return data


def _is_blob(algorithm: str, encoded: str) -> bool:
    return Digest.from_encoded(algorithm, encoded).is_wellformed()
