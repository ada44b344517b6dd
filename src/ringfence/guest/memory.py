"""Memory that is about to be written to."""

import ctypes
import functools
import mmap
from collections.abc import Callable

_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, which the mmap module does not name


def populate(view: memoryview) -> None:
    """Take the memory of the whole pages of `view` in one call instead of with a fault for each.

    It is advice: a kernel before 5.14, or a want of memory, changes nothing.
    """
    begin = ctypes.addressof(ctypes.c_char.from_buffer(view))
    start = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    stop = (begin + len(view)) // mmap.PAGESIZE * mmap.PAGESIZE
    if start < stop:
        _madvise()(start, stop - start, _POPULATE_WRITE)


@functools.cache
def _madvise() -> Callable[[int, int, int], int]:
    call = ctypes.CDLL(None).madvise
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return call
