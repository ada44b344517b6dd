"""Where things are below a store's directory, and how they are written so that they last.

oci-layout, index.json, blobs/<algorithm>/<encoded>   the OCI image layout
.ringfence/ingests/<sha256 of the ref>/{data,about,checkpoint,reserved}, and <same>.lock
.ringfence/labels/<algorithm>/<encoded>               JSON
.ringfence/damaged/<algorithm>:<encoded>              what scrub took out
.ringfence/lock, .ringfence/composing                 see `locks`
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ringfence.digest.digest import Digest
from ringfence.digest.errors import DigestUnsupported
from ringfence.digest.store import locks
from ringfence.digest.store.errors import StoreInvalid

VERSION = {"imageLayoutVersion": "1.0.0"}
INDEX = {"schemaVersion": 2, "manifests": []}
_OURS = ".ringfence"
_OTHERS_WRITE = 0o022


class Layout:
    """The paths of one store. Making one touches nothing; `establish` does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.index = root / "index.json"
        self.blobs = root / "blobs"
        self.ours = root / _OURS
        self.ingests = self.ours / "ingests"
        self.labels = self.ours / "labels"
        self.damaged = self.ours / "damaged"
        self.lock = self.ours / "lock"
        self.composing = self.ours / "composing"

    def establish(self) -> None:
        """Make what is missing. StoreInvalid for what is no directory or holds something else, and
        for one that others may write to: a forged hash state would make any content verified."""
        try:
            self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise StoreInvalid(f"{self.root} is no directory") from None
        _require_ours(self.root)
        marker = self.root / "oci-layout"
        names = {path.name for path in self.root.iterdir()}
        if names and not names & {_OURS, marker.name}:
            raise StoreInvalid(f"{self.root} is neither empty nor an OCI image layout")
        self.ours.mkdir(mode=0o700, exist_ok=True)
        _require_ours(self.ours)
        for directory in (self.blobs, self.ingests, self.labels, self.damaged):
            directory.mkdir(mode=0o755, exist_ok=True)
        if not self.index.exists():
            with locks.exclusive(self.lock):
                if not self.index.exists():  # nobody has made it and named something meanwhile
                    write(self.index, json.dumps(INDEX).encode())
        if not marker.exists():
            write(marker, json.dumps(VERSION).encode())
        elif read_json(marker).get("imageLayoutVersion") != VERSION["imageLayoutVersion"]:
            raise StoreInvalid(f"{marker} names a version of the layout that is not known")

    def blob(self, digest: str) -> Path:
        """A blob's path. Only well-formed digests of known shape become paths: DigestError."""
        checked = _checked(digest)
        return self.blobs / checked.algorithm / checked.encoded

    def found(self) -> Iterator[tuple[Digest, Path]]:
        """Every blob's digest and file, in the order of algorithm and encoded part."""
        for path in sorted(self.blobs.glob("*/*")):
            digest = digest_at(path)
            if digest is not None and path.is_file():
                yield digest, path

    def taken_out(self, digest: str) -> Path:
        """Where `scrub` puts a damaged blob."""
        return self.damaged / str(_checked(digest))

    def label(self, digest: str) -> Path:
        """The path of a blob's labels."""
        checked = _checked(digest)
        return self.labels / checked.algorithm / checked.encoded

    def ingest(self, ref: str) -> Path:
        """The directory of an ingest; a ref is any text."""
        return self.ingests / Digest.from_str(ref).encoded


def _require_ours(directory: Path) -> None:
    status = directory.stat()
    if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_WRITE:
        raise StoreInvalid(
            f"{directory} must belong to uid {os.geteuid()} and be writable by it alone:"
            " chmod go-w it"
        )


def _checked(digest: str) -> Digest:
    return Digest.parse(digest, strict=False)


def digest_at(path: Path) -> Digest | None:
    """The digest that a path below blobs/ stands for, None when it is no blob's."""
    made = Digest.from_encoded(path.parent.name, path.name)
    return made if made.is_wellformed() else None


def require_verifiable(digest: Digest) -> None:
    """DigestUnsupported when content of this digest cannot be verified here."""
    digest.validate(strict=False)
    if not digest.algorithm.available:
        raise DigestUnsupported(f"{digest}: its algorithm is not available here")


SCRATCH = re.compile(r"\..+\.\d+\.[0-9a-f]{8}")
"""Names of files on their way to their place."""


def write(path: Path, data: bytes) -> None:
    """Put a small file in place as a whole, durably."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(scratch, flags, 0o644), "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make what was renamed, made or removed in a directory last."""
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. StoreInvalid when it is not one; FileNotFoundError."""
    return parsed(path.read_bytes(), path)


def parsed(content: bytes, name: object) -> dict[str, Any]:
    """The JSON object that `content`, which is called `name`, is. StoreInvalid."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        raise StoreInvalid(f"{name} is not JSON") from None
    if not isinstance(data, dict):
        raise StoreInvalid(f"{name} is not a JSON object")
    return data


def read_index(path: Path) -> dict[str, Any]:
    """index.json, with a list of objects as its manifests. StoreInvalid."""
    index = read_json(path)
    manifests = index.get("manifests")
    if not isinstance(manifests, list) or not all(isinstance(each, dict) for each in manifests):
        raise StoreInvalid(f"{path} has no list of manifests")
    return index
