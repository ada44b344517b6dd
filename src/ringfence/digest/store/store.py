"""The store itself."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ringfence.digest.algorithm import CANONICAL
from ringfence.digest.descriptor import Descriptor
from ringfence.digest.digest import Digest
from ringfence.digest.errors import SizeMismatch
from ringfence.digest.reader import VerifyingReader
from ringfence.digest.store import garbage, labels, locks, quota, scrub
from ringfence.digest.store.errors import BlobExists, BlobNotFound, StoreInvalid
from ringfence.digest.store.garbage import Collected
from ringfence.digest.store.ingest import CHECKPOINT, Ingest
from ringfence.digest.store.layout import Layout, read_index, read_json, require_verifiable, write
from ringfence.digest.store.scrub import Damage

if TYPE_CHECKING:
    from ringfence.digest.streams import Source

_NAME = "org.opencontainers.image.ref.name"
_HOUR = 3600.0


class Blob(NamedTuple):
    """size: bytes. modified: when it came in, seconds since the epoch."""

    digest: Digest
    size: int
    modified: float
    labels: Mapping[str, str]


class Store:
    """A directory of blobs. Any number of processes and threads may use it at once.

    root: made when missing; must belong to this user alone. quota: bytes of everything, None for
    no bound. checkpoint: bytes between two checkpoints of an ingest. Raises StoreInvalid.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        quota: int | None = None,
        checkpoint: int = CHECKPOINT,
    ) -> None:
        self.root = Path(root).absolute()
        self.quota = quota
        self._checkpoint = checkpoint
        self._layout = Layout(self.root)
        self._layout.establish()

    def ingest(
        self,
        ref: str,
        *,
        expected: str | None = None,
        size: int | None = None,
        algorithm: str = CANONICAL,
    ) -> Ingest:
        """Begin a blob, or go on with the one that was begun under this ref.

        expected, size: checked at the commit, the size at each write too. One begun with another
        expectation starts again. Raises BlobExists when `expected` is there with that size,
        IngestBusy, QuotaExceeded, SizeMismatch for a negative size, DigestError for a digest that
        cannot be verified here.
        """
        if size is not None and size < 0:
            raise SizeMismatch(f"{ref}: the size {size} is negative")
        digest = None
        if expected is not None:
            digest = Digest(expected)
            require_verifiable(digest)
            if self._renewed(digest, size):
                self.abort(ref)
                raise BlobExists(f"{digest} is in the store already")
        return Ingest(
            self._layout,
            ref,
            algorithm=algorithm,
            expected=digest,
            size=size,
            quota=self.quota,
            checkpoint=self._checkpoint,
        )

    def put(
        self,
        source: bytes | Source,
        *,
        expected: str | None = None,
        size: int | None = None,
        labels: Mapping[str, str] | None = None,
        algorithm: str = CANONICAL,
    ) -> Digest:
        """Ingest bytes or a binary stream in one go; the digest. Nothing is left of a failure.

        A blob that is there already, with that size, is fine: then the source is not read.
        """
        reader = io.BytesIO(source) if isinstance(source, bytes) else source
        ref = f"put {os.urandom(16).hex()}"
        try:
            ingest = self.ingest(ref, expected=expected, size=size, algorithm=algorithm)
        except BlobExists:
            digest = Digest(expected or "")
            if labels:
                self.label(digest, labels)
            return digest
        try:
            ingest.read_from(reader)
            return ingest.commit(labels)
        finally:
            ingest.abort()
            self.abort(ref)  # what an interruption ended, too

    def _renewed(self, digest: Digest, size: int | None) -> bool:
        """Whether a blob of this size is there; then it is as young as one that came in now."""
        with locks.shared(self._layout.lock):
            if digest not in self or size not in (None, self.info(digest).size):
                return False
            os.utime(self._layout.blob(digest))
        return True

    def abort(self, ref: str) -> None:
        """Remove what is left of an ingest, if there is anything. IngestBusy."""
        if self._layout.ingest(ref).exists():
            Ingest(self._layout, ref).abort()

    def ingests(self) -> dict[str, int]:
        """Every ingest's ref and the bytes on disk."""
        found: dict[str, int] = {}
        for directory in self._layout.ingests.iterdir():
            try:
                ref = str(read_json(directory / "about")["ref"])
                found[ref] = (directory / "data").stat().st_size
            except (OSError, StoreInvalid, KeyError):
                continue
        return found

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, str) and self._layout.blob(digest).is_file()

    def info(self, digest: str) -> Blob:
        """What is known of a blob, without reading it. BlobNotFound."""
        try:
            status = self._layout.blob(digest).stat()
        except FileNotFoundError:
            raise BlobNotFound(f"{digest} is not in the store") from None
        found = labels.of(self._layout, digest)
        return Blob(Digest(digest), status.st_size, status.st_mtime, found)

    def blob_path(self, digest: str) -> Path:
        """Where a blob's file is. What is read there is not verified. BlobNotFound."""
        path = self._layout.blob(digest)
        if not path.is_file():
            raise BlobNotFound(f"{digest} is not in the store")
        return path

    def open(self, digest: str) -> VerifyingReader:
        """A verified reader of a blob: it raises instead of ending when the blob is damaged.

        BlobNotFound; DigestUnsupported when it cannot be verified here.
        """
        require_verifiable(Digest(digest))
        try:
            stream = self.blob_path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            raise BlobNotFound(f"{digest} is not in the store any more") from None
        return VerifyingReader(stream, digest, os.fstat(stream.fileno()).st_size)

    def read(self, digest: str) -> bytes:
        """A blob's bytes, verified."""
        with self.open(digest) as reader:
            return reader.readall()

    def walk(self) -> Iterator[Blob]:
        """Every blob, in the order of algorithm and encoded part."""
        for digest, _ in self._layout.found():
            try:
                yield self.info(digest)
            except BlobNotFound:
                continue

    def label(self, digest: str, texts: Mapping[str, str | None]) -> dict[str, str]:
        """Set labels, and remove those that are None; all of them after that. BlobNotFound."""
        with locks.shared(self._layout.lock):
            self.blob_path(digest)
            return labels.change(self._layout, digest, texts)

    def delete(self, digest: str) -> None:
        """Remove a blob, whoever needs it, and its labels; those that a commit which was killed
        left without a blob, too. BlobNotFound."""
        with locks.exclusive(self._layout.lock):
            if digest in self or not labels.of(self._layout, digest):
                self.blob_path(digest).unlink()
            self._layout.label(digest).unlink(missing_ok=True)

    def tags(self) -> dict[str, Descriptor]:
        """The entries of index.json that have a name."""
        entries = garbage.tagged(self._layout)
        return {entry.annotations[_NAME]: entry for entry in entries if _NAME in entry.annotations}

    def tag(self, name: str, descriptor: Descriptor) -> None:
        """Let `name` stand for a manifest in the store and for no other. BlobNotFound."""
        entry = descriptor.to_dict()
        entry["annotations"] = {**descriptor.annotations, _NAME: name}
        self._rename(name, [entry], descriptor.digest)

    def untag(self, name: str) -> None:
        """Forget a name. One that is not there changes nothing."""
        self._rename(name, [])

    def release(self, name: str) -> Collected:
        """Forget a name and remove at once what only that needed. BlobNotFound without it."""
        found = self.tags().get(name)
        if found is None:
            raise BlobNotFound(f"nothing in the store is called {name}")
        self.untag(name)
        return garbage.release(self._layout, found.digest)

    def discard(self, digest: str, *, wait: bool = True) -> Collected:
        """Remove at once what was put under no name: a blob and what only it needed. Nothing when
        something needs it. Not while this thread is `composing`: it would wait for itself.

        wait: for others who compose, whose it may be too; or raise StoreBusy.
        """
        return garbage.release(self._layout, Digest.parse(digest, strict=False), wait=wait)

    @contextmanager
    def composing(self) -> Iterator[None]:
        """While the parts of an image are put, until it has its name: none of them is collected.
        Others may compose meanwhile. Waits for a collection to end."""
        with locks.shared(self._layout.composing):
            yield

    def _rename(self, name: str, added: list[dict[str, object]], needed: str | None = None) -> None:
        with locks.exclusive(self._layout.lock):
            if needed is not None:
                self.blob_path(needed)
            index = read_index(self._layout.index)
            others = [
                entry
                for entry in index["manifests"]
                if (entry.get("annotations") or {}).get(_NAME) != name
            ]
            index["manifests"] = others + added
            write(self._layout.index, json.dumps(index).encode())

    def usage(self) -> int:
        """Bytes that count for the quota: blobs, damaged ones, ingests with what they reserved."""
        return quota.usage(self._layout)

    def gc(
        self,
        roots: Iterable[str] = (),
        *,
        grace: float = _HOUR,
        stale: float = 24 * _HOUR,
        dry_run: bool = False,
    ) -> Collected:
        """Remove blobs that no root needs. roots: digests, besides those the module names.

        grace: blobs younger than this (seconds) stay, so that a manifest can come after its
        layers. stale: ingests that nobody wrote to for this long (seconds) go. StoreInvalid, and
        nothing is removed, when a needed manifest is damaged, also if `scrub` took it out.
        """
        return garbage.collect(self._layout, roots, grace=grace, stale=stale, dry_run=dry_run)

    def scrub(
        self, *, move: bool = False, progress: Callable[[int], None] | None = None
    ) -> Iterator[Damage]:
        """Read every blob and report damage; see `ringfence.digest.store.scrub`."""
        return scrub.scrub(self._layout, move=move, progress=progress)
