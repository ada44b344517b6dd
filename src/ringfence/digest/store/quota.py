"""How much a store holds, and how much more it may."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ringfence.digest.store import locks
from ringfence.digest.store.errors import QuotaExceeded
from ringfence.digest.store.layout import Layout

_STEP = 16 * 1024 * 1024


def usage(layout: Layout, but: Path | None = None) -> int:
    """Bytes of all blobs and of all ingests (what they reserved, when that is more).

    but: the directory of an ingest that is not counted.
    """
    blobs = sum(size for _, size in _files(layout.blobs))
    damaged = sum(size for _, size in _files(layout.damaged))
    return blobs + damaged + sum(
        max(_size(directory / "data"), _reserved(directory))
        for directory in layout.ingests.iterdir()
        if directory != but and directory.is_dir()
    )  # fmt: skip


class Reservation:
    """What one ingest may still write. quota: bytes of the whole store, None for no bound."""

    def __init__(self, layout: Layout, directory: Path, quota: int | None) -> None:
        self._layout = layout
        self._directory = directory
        self._quota = quota
        self._granted = 0

    def need(self, total: int, *, ahead: int = _STEP) -> None:
        """Make sure that the ingest may hold `total` bytes. QuotaExceeded.

        ahead: how much more to reserve, if there is room, so that not every write has to ask.
        """
        if self._quota is None or total <= self._granted:
            return
        with locks.exclusive(self._layout.lock):
            free = self._quota - usage(self._layout, self._directory)
            if total > free:
                raise QuotaExceeded(
                    f"{total} bytes are more than the {max(0, free)} that are left of the store's"
                    f" quota of {self._quota}: collect garbage, or raise it"
                )
            self._granted = min(free, total + ahead)
            (self._directory / "reserved").write_text(str(self._granted))


def _reserved(directory: Path) -> int:
    try:
        return int((directory / "reserved").read_text() or "0")
    except (OSError, ValueError):
        return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _files(directory: Path) -> Iterator[tuple[str, int]]:
    for base, _, names in os.walk(directory):
        for name in names:
            path = Path(base, name)
            yield str(path), _size(path)
