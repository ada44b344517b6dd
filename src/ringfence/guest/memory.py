"""Memory for what is long and comes piece by piece."""

import io
import mmap

_HUGE_BYTES = 4 * 1024 * 1024


def zeros(size: int) -> io.BytesIO:
    """A BytesIO of `size` zeros that takes memory as it is written to. MemoryError.

    `getbuffer()` gives a view to write through, and `getvalue()` the bytes without a copy, once
    the view was released. Where it is long and the kernel can, it is of huge pages: the faults of
    small ones cost more than copying the data does.
    """
    stream = io.BytesIO(bytes(size))
    if size >= _HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        with stream.getbuffer() as view:
            _advise(view, mmap.MADV_HUGEPAGE)
    return stream


def _advise(view: memoryview, advice: int) -> None:
    """madvise(2) for the whole pages of `view`; it is advice, so a refusal changes nothing."""
    import ctypes

    begin = ctypes.addressof(ctypes.c_char.from_buffer(view))
    start = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    stop = (begin + len(view)) // mmap.PAGESIZE * mmap.PAGESIZE
    advise = ctypes.CDLL(None).madvise
    advise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), ctypes.c_int(advice))
