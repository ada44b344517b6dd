"""Memory that is about to be written to."""

import ctypes
import functools
import mmap
from collections.abc import Callable

_HUGEPAGE = 14  # MADV_HUGEPAGE, which the mmap module may not name
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, which it does not name


def populate(view: memoryview) -> None:
    """Take the memory of the whole pages of `view` in one call instead of with a fault for each.

    It is advice: a kernel before 5.14, or a want of memory, changes nothing.
    """
    _advise(view, _POPULATE_WRITE)


def in_large_pages(view: memoryview) -> None:
    """Have the memory of `view` taken in large pages, which are cleared in a fraction of the time.

    Nothing is taken yet. It is advice: a kernel without such pages changes nothing.
    """
    _advise(view, _HUGEPAGE)


def _advise(view: memoryview, advice: int) -> None:
    begin = ctypes.addressof(ctypes.c_char.from_buffer(view))
    start = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    stop = (begin + len(view)) // mmap.PAGESIZE * mmap.PAGESIZE
    if start < stop:
        _madvise()(start, stop - start, advice)


@functools.cache
def _madvise() -> Callable[[int, int, int], int]:
    call = ctypes.CDLL(None).madvise
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return call
