"""Digests of files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ringfence.digest.algorithm import CANONICAL, Algorithm
from ringfence.digest.digest import Digest
from ringfence.digest.streams import pour

if TYPE_CHECKING:
    from io import FileIO

    _Feed = Callable[[memoryview | bytes], None]
    _Way = Callable[[FileIO, _Feed, int, int], None]

_WINDOW = 64 * 1024 * 1024
"""Bytes mapped at once, and read in before they are looked at: faults cost more than the copy."""
_POPULATE_READ = 22
"""MADV_POPULATE_READ: reads pages in; an error where looking at one would be a SIGBUS."""
_TRIED = 8 * 1024 * 1024
"""What each way of hashing is tried with, a multiple of what a mapping may begin at."""
_LONG = 8 * _TRIED
"""Files from here up are worth a trial."""


def digest_file(
    path: str | os.PathLike[str],
    algorithm: str = CANONICAL,
    *,
    progress: Callable[[int], None] | None = None,
) -> Digest:
    """The digest of a file that anybody may be writing to. OSError; DigestUnsupported.

    progress: told the number of bytes of each step.
    """
    hasher = Algorithm(algorithm).hash()
    feed = hasher.update if progress is None else _told(hasher.update, progress)
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - pathlib is slow to import
        pour(stream, feed)
    return Digest.from_hash(algorithm, hasher)


def digest_mapped(
    path: str | os.PathLike[str],
    algorithm: str = CANONICAL,
    *,
    progress: Callable[[int], None] | None = None,
) -> Digest:
    """The same, through a memory mapping where that costs less than a copy.

    Only for files that nobody shortens meanwhile, such as a store's blobs: a file that is
    truncated under its mapping ends the process with SIGBUS.

    What costs less is the processor's and the page cache's matter: hashing through small pages
    that are not in the processor's cache can be slower than copying them first. So the beginning
    of a long file is hashed both ways, a part each, and the rest the way that took less CPU time.
    """
    hasher = Algorithm(algorithm).hash()
    feed = hasher.update if progress is None else _told(hasher.update, progress)
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - pathlib is slow to import
        size = os.fstat(stream.fileno()).st_size
        done = 0
        cheaper: _Way = _copied
        if size >= _LONG:
            costs = {}
            for way in (_copied, _mapped):
                begin = time.thread_time()
                way(stream, feed, done, _TRIED)
                costs[way] = time.thread_time() - begin
                done += _TRIED
            cheaper = min(costs, key=costs.__getitem__)
        cheaper(stream, feed, done, size - done)
    return Digest.from_hash(algorithm, hasher)


def _copied(stream: FileIO, feed: _Feed, start: int, length: int) -> None:
    stream.seek(start)
    pour(stream, feed, length)


def _mapped(stream: FileIO, feed: _Feed, start: int, length: int) -> None:
    import mmap

    for offset in range(start, start + length, _WINDOW):
        size = min(_WINDOW, start + length - offset)
        try:
            window = mmap.mmap(
                stream.fileno(), size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ, offset=offset
            )
        except ValueError:  # it is shorter by now
            _copied(stream, feed, offset, size)
            continue
        with window:
            try:
                window.madvise(_POPULATE_READ)
            except OSError:  # a kernel before 5.14, or a page that reading may tell more of
                _copied(stream, feed, offset, size)
            else:
                with memoryview(window) as view:
                    feed(view)


def _told(
    feed: Callable[[memoryview | bytes], None], progress: Callable[[int], None]
) -> Callable[[memoryview | bytes], None]:
    def both(data: memoryview | bytes) -> None:
        feed(data)
        progress(len(data))

    return both
