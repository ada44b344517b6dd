"""Locks between processes and threads: flock on a file, opened anew each time.

The store's lock is shared by whoever adds a blob and exclusive for whoever removes some, changes
index.json, or counts for the quota. An ingest's lock is exclusive to its writer. The lock
"composing" is shared by whoever puts blobs that no manifest names yet, and exclusive for whoever
removes what is not needed. Order: composing, then an ingest's lock, then the store's. The kernel
drops the locks of a process that dies.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence.digest.store.errors import IngestBusy, StoreBusy


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold the lock together with others who share it. Waits."""
    with _held(path, fcntl.LOCK_SH):
        yield


@contextmanager
def exclusive(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock alone. Waits, or raises StoreBusy."""
    with _held(path, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB):
        yield


@contextmanager
def _held(path: Path, how: int) -> Iterator[None]:
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(number, how)
        except BlockingIOError:
            raise StoreBusy(f"{path.parent.parent} is being written to") from None
        yield
    finally:
        os.close(number)


def own(path: Path) -> int:
    """Take an ingest's lock or raise IngestBusy; the descriptor to close for giving it back.

    A lock file that was removed between our opening and our locking it is no lock: try again.
    """
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(number, path):
                return number
        except BlockingIOError:
            os.close(number)
            raise IngestBusy(f"{path.stem} is being written by somebody else") from None
        except BaseException:
            os.close(number)
            raise
        os.close(number)


def _is_at(number: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(number), path.stat())
    except FileNotFoundError:
        return False
