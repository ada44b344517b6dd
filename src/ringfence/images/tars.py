"""Tars of strangers, whose headers take no more memory than those of images do."""

from __future__ import annotations

import tarfile
from typing import IO, Any

MOST_HEADER = 4 * 1024 * 1024
"""Bytes that tell of one member: of its name, its attributes, the holes in it."""


class Tar(tarfile.TarFile):
    """A tar to read, compressed or not; `open` makes one. Its members keep no `pax_headers`.

    Beyond MOST_HEADER for one member, or for what is said of all that follow, `next` raises
    ValueError: a header may claim any number of bytes, which packed are few.
    """

    def __init__(self, name: Any, mode: Any, fileobj: IO[bytes], **options: Any) -> None:
        self._source = _Source(fileobj)
        super().__init__(name, mode, self._source, **options)  # type: ignore[arg-type]

    @property
    def header_bytes(self) -> int:
        """Of all members that were read so far."""
        return self._source.told

    def next(self) -> tarfile.TarInfo | None:
        """The next member, None at the end."""
        self._source.room = MOST_HEADER
        try:
            member = super().next()
        finally:
            self._source.room = None
        if sum(len(name) + len(text) for name, text in self.pax_headers.items()) > MOST_HEADER:
            raise _too_much()
        if member is not None:
            member.pax_headers = {}
        return member


class _Source:
    """A file, unpacked. room: bytes that may still be read, None for any number. told: those that
    were read with a bound."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.room: int | None = None
        self.told = 0

    def read(self, size: int = -1, /) -> bytes:
        if self.room is None:
            return self._file.read(size)
        if not 0 <= size <= self.room:
            raise _too_much()
        self.room -= size
        self.told += size
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return self._file.seekable()

    def close(self) -> None:
        self._file.close()


def _too_much() -> ValueError:
    return ValueError(f"it has over {MOST_HEADER} bytes of headers for one member")
