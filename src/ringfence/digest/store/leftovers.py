"""What was begun and never ended: ingests that nobody writes to, and what a killed process left."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ringfence.digest.digest import Digest
from ringfence.digest.store import locks
from ringfence.digest.store.errors import IngestBusy
from ringfence.digest.store.ingest import lock_of
from ringfence.digest.store.layout import SCRATCH, Layout, digest_at


def ingests(layout: Layout, stale: float, dry_run: bool) -> int:
    """Remove ingests that nobody has written to for `stale` seconds; how many those are."""
    before = time.time() - stale
    count = 0
    for directory in sorted({path.with_suffix("") for path in layout.ingests.iterdir()}):
        if _touched(directory) > before:
            continue
        try:
            lock = locks.own(lock_of(directory))
        except IngestBusy:
            continue
        try:
            if _touched(directory) > before:
                continue
            count += directory.is_dir()
            if not dry_run:
                shutil.rmtree(directory, ignore_errors=True)
                lock_of(directory).unlink(missing_ok=True)
        finally:
            os.close(lock)
    return count


def sweep(layout: Layout, needed: Collection[Digest], stale: float) -> None:
    """Remove halves of small files, and labels of blobs that are not there and that nothing needs,
    both untouched for `stale` seconds. The caller holds the store's lock alone."""
    before = time.time() - stale
    for path in [*layout.root.glob(".*"), *layout.labels.glob("*/*")]:
        digest = None if path.parent == layout.root else digest_at(path)
        if digest is None and not SCRATCH.fullmatch(path.name):
            continue
        if digest is not None and (digest in needed or layout.blob(digest).exists()):
            continue
        with suppress(FileNotFoundError):  # it came to its place meanwhile
            if path.stat().st_mtime <= before:
                path.unlink()


def _touched(directory: Path) -> float:
    """When an ingest was last written to; far in the future when it is gone."""
    try:
        places = [directory, *directory.iterdir()] if directory.is_dir() else [lock_of(directory)]
        return max(path.stat().st_mtime for path in places)
    except FileNotFoundError:
        return float("inf")
