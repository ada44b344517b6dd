"""A blob in the making."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ringfence.digest.algorithm import CANONICAL
from ringfence.digest.digest import Digest
from ringfence.digest.digester import Digester
from ringfence.digest.errors import DigestError, DigestMismatch, SizeMismatch, TrailingData
from ringfence.digest.store import labels, locks
from ringfence.digest.store.errors import StoreError, StoreInvalid
from ringfence.digest.store.layout import Layout, read_json, sync_directory, write
from ringfence.digest.store.quota import Reservation
from ringfence.digest.streams import pour

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ringfence.digest.streams import Source

CHECKPOINT = 64 * 1024 * 1024
"""Bytes between two checkpoints, unless the store says otherwise."""


class Ingest:
    """Write to it from `offset` on, then `commit`. Made by `Store.ingest`; a context manager.

    Its life: open, from its last checkpoint or from the beginning; then committed (the blob is
    there), aborted (nothing is left), or suspended (leaving the `with` block otherwise), to go on
    later under the same ref, in any process. After a crash it goes on from the last checkpoint.
    One writer; others get IngestBusy.
    """

    def __init__(
        self,
        layout: Layout,
        ref: str,
        *,
        algorithm: str = CANONICAL,
        expected: Digest | None = None,
        size: int | None = None,
        quota: int | None = None,
        checkpoint: int = CHECKPOINT,
    ) -> None:
        self.ref = ref
        self.expected = expected
        self.size = size
        self._layout = layout
        self._directory = layout.ingest(ref)
        self._data = self._directory / "data"
        self._every = checkpoint
        self._lock: int | None = locks.own(lock_of(self._directory))
        self._file = -1
        self._saved = 0
        self._is_new = not self._directory.exists()
        try:
            self._digester = self._begin(expected.algorithm if expected else algorithm)
            self._reservation = Reservation(layout, self._directory, quota)
            self._reservation.need(self.offset if size is None else size, ahead=0)
        except BaseException:
            if self._is_new:
                self.abort()
            else:
                self._close()
            raise

    @property
    def offset(self) -> int:
        """Bytes that it has: where the writer goes on."""
        return self._digester.written

    @property
    def closed(self) -> bool:
        """Whether it is over, or suspended."""
        return self._lock is None

    def write(self, data: Buffer) -> int:
        """Take bytes; returns how many, which is all.

        TrailingData aborts the ingest; QuotaExceeded does not.

        OSError when the disk is full; then nothing of `data` counts. Any other interruption ends
        it as a crash does: it is not known how much of `data` came.
        """
        self._require_open()
        with memoryview(data) as whole, whole.cast("B") as view:
            total = self.offset + len(view)
            if self.size is not None and total > self.size:
                self.abort()
                raise TrailingData(f"{self.ref}: more than {self.size} bytes")
            self._reservation.need(total)
            try:
                self._append(view)
                count = self._digester.write(view)
            except OSError:
                raise
            except BaseException:
                self._close()
                raise
        if self.offset - self._saved >= self._every:
            self.checkpoint()
        return count

    def read_from(self, reader: Source) -> int:
        """Write what is left of a binary stream; how many bytes that was."""
        return pour(reader, self.write)

    def checkpoint(self) -> None:
        """Make what came so far last: a crash after this loses none of it."""
        self._require_open()
        os.fsync(self._file)
        about = {
            "algorithm": str(self._digester.algorithm),
            "offset": self.offset,
            "state": self._digester.state().hex(),
        }
        write(self._directory / "checkpoint", json.dumps({**about, "sum": _sum(about)}).encode())
        self._saved = self.offset

    def commit(self, labels: Mapping[str, str] | None = None) -> Digest:
        """Verify and put the blob in place, durably and at once; its digest.

        The size is checked first: SizeMismatch leaves the ingest as it is. DigestMismatch aborts
        it. A blob that is there already is replaced by the same bytes.
        """
        self._require_open()
        if self.size is not None and self.offset != self.size:
            raise SizeMismatch(f"{self.ref}: {self.offset} bytes instead of {self.size}")
        digest = self._digester.digest()
        if self.expected is not None and digest != self.expected:
            self.abort()
            raise DigestMismatch(f"{self.ref}: expected {self.expected}, the content is {digest}")
        os.fchmod(self._file, 0o444)
        os.utime(self._file)
        os.fsync(self._file)
        with locks.shared(self._layout.lock):
            self._place(digest, labels or {})
        self.abort()
        return digest

    def suspend(self) -> None:
        """Checkpoint and let go; `Store.ingest` with the same ref goes on. Idempotent."""
        if not self.closed:
            try:
                self.checkpoint()
            finally:
                self._close()

    def abort(self) -> None:
        """Let go and leave nothing. Idempotent."""
        if not self.closed:
            shutil.rmtree(self._directory, ignore_errors=True)
            lock_of(self._directory).unlink(missing_ok=True)
            self._close()

    def _begin(self, algorithm: str) -> Digester:
        wanted = {
            "ref": self.ref,
            "algorithm": str(algorithm),
            "expected": None if self.expected is None else str(self.expected),
            "size": self.size,
        }
        digester = self._resumed(wanted)
        if digester is None:
            self._is_new = True
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory.mkdir(mode=0o700)
            about = {**wanted, "started": time.time()}
            write(self._directory / "about", json.dumps(about).encode())
            digester = Digester(algorithm)
        else:
            self._saved = digester.written
            self._data.chmod(0o600)  # a commit that was broken off has made it read-only
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self._data, flags, 0o600)
        os.ftruncate(self._file, digester.written)
        os.lseek(self._file, digester.written, os.SEEK_SET)
        return digester

    def _resumed(self, wanted: Mapping[str, Any]) -> Digester | None:
        """A digester at the last checkpoint; None when there is none that fits."""
        try:
            about = read_json(self._directory / "about")
            saved = read_json(self._directory / "checkpoint")
            total = saved.pop("sum", None)
            if any(about.get(name) != value for name, value in wanted.items()):
                return None
            if total != _sum(saved) or saved["algorithm"] != wanted["algorithm"]:
                return None
            with self._data.open("rb", buffering=0) as prefix:
                if os.fstat(prefix.fileno()).st_size < saved["offset"]:
                    return None
                return Digester.resume(
                    saved["algorithm"],
                    bytes.fromhex(saved["state"]),
                    offset=saved["offset"],
                    prefix=prefix,
                )
        except (OSError, StoreInvalid, DigestError, KeyError, TypeError, ValueError):
            return None

    def _append(self, view: memoryview) -> None:
        start = self.offset
        rest = view
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except BaseException:
            os.ftruncate(self._file, start)
            os.lseek(self._file, start, os.SEEK_SET)
            raise

    def _place(self, digest: Digest, texts: Mapping[str, str]) -> None:
        target = self._layout.blob(digest)
        if not target.parent.exists():
            target.parent.mkdir(mode=0o755, exist_ok=True)
            sync_directory(target.parent.parent)
        if texts:
            labels.change(self._layout, digest, texts)
        self._data.replace(target)
        sync_directory(target.parent)

    def _require_open(self) -> None:
        if self.closed:
            raise StoreError(f"the ingest {self.ref} is over")

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.suspend()


def lock_of(directory: Path) -> Path:
    """The lock of an ingest's directory."""
    return directory.with_suffix(".lock")


def _sum(about: Mapping[str, Any]) -> str:
    return str(Digest.from_str(json.dumps(about, sort_keys=True)))
