"""Digests of files."""

from __future__ import annotations

import os
from collections.abc import Callable

from ringfence.digest.algorithm import CANONICAL, Algorithm
from ringfence.digest.digest import Digest
from ringfence.digest.streams import pour

_WINDOW = 64 * 1024 * 1024
"""Bytes mapped at once, and read in before they are looked at: faults cost more than the copy."""


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
    """The same through a memory mapping, which saves a copy.

    Only for files that nobody shortens meanwhile, such as a store's blobs: a file that is
    truncated under its mapping ends the process with SIGBUS.
    """
    import mmap

    hasher = Algorithm(algorithm).hash()
    feed = hasher.update if progress is None else _told(hasher.update, progress)
    flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_POPULATE", 0)
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - pathlib is slow to import
        size = os.fstat(stream.fileno()).st_size
        for start in range(0, size, _WINDOW):
            length = min(_WINDOW, size - start)
            with (
                mmap.mmap(
                    stream.fileno(), length, flags=flags, prot=mmap.PROT_READ, offset=start
                ) as window,
                memoryview(window) as view,
            ):
                feed(view)
    return Digest.from_hash(algorithm, hasher)


def _told(
    feed: Callable[[memoryview | bytes], None], progress: Callable[[int], None]
) -> Callable[[memoryview | bytes], None]:
    def both(data: memoryview | bytes) -> None:
        feed(data)
        progress(len(data))

    return both
