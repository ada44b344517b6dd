"""The bytes of one file, put into another: shared where the file system can, else copied."""

import errno
import fcntl
import os
from collections.abc import Iterator

_FICLONE = 0x40049409
_NO_RANGE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Filling:
    """Fills files between two places, the way that was possible last."""

    def __init__(self) -> None:
        self._reflinks = True
        self._ranges = True

    def fill(self, reader: int, writer: int, size: int) -> None:
        """Write so many bytes of one file into another, fewer when there are fewer."""
        if self._reflinks and size:
            try:
                fcntl.ioctl(writer, _FICLONE, reader)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise
                self._reflinks = False
            else:
                return
        at = 0
        for start, end in _pieces(reader, size):
            at = start
            while at < end:
                done = self._piece(reader, writer, at, end - at)
                if not done:
                    return
                at += done
        if at < size:  # a hole is the end
            os.ftruncate(writer, size)

    def _piece(self, reader: int, writer: int, start: int, size: int) -> int:
        """Copy so many bytes or fewer; how many, 0 at the end of the file."""
        if self._ranges:
            try:
                return os.copy_file_range(reader, writer, size, start, start)
            except OSError as error:
                if error.errno not in _NO_RANGE:
                    raise
                self._ranges = False
        return os.pwrite(writer, os.pread(reader, min(size, 1 << 20), start), start)


def _pieces(reader: int, size: int) -> Iterator[tuple[int, int]]:
    """Where the data of a file is, from and to: a sparse one has holes between."""
    if os.fstat(reader).st_blocks * 512 >= size:
        yield 0, size
        return
    end = 0
    while end < size:
        try:
            start = os.lseek(reader, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        end = os.lseek(reader, start, os.SEEK_HOLE)
        yield start, min(end, size)
