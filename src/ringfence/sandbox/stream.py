"""What a spawned command writes, as its user reads it."""

from collections.abc import AsyncIterator
from typing import Self

from ringfence.guest.execs import Exec
from ringfence.guest.given import whole_number

_CHUNK = 64 * 1024
_MOST_READ = 2**63 - 1
_LONGEST_LINE = 1024 * 1024
"""Bytes after which a line without an end is handed out in parts."""


class Stream(AsyncIterator[bytes]):
    """stdout or stderr of one process: bytes as they come, under flow control.

    A process whose output nobody reads waits; read it, `discard()` it, or let `wait()` collect it.
    One reader at a time.
    """

    def __init__(self, exec_: Exec, number: int) -> None:
        self._exec = exec_
        self.number = number
        self._line = bytearray()
        self.touched = False

    async def read(self, size: int = _CHUNK) -> bytes:
        """1 to `size` bytes; b"" at the end. Cancellation loses nothing."""
        whole_number(size, "size", _MOST_READ, 1)
        self.touched = True
        if self._line:
            chunk = bytes(self._line[:size])
            del self._line[:size]
            return chunk
        return await self._exec.read(self.number, size)

    async def read_all(self, limit: int | None = None) -> bytes:
        """All up to the end, of which at most `limit` bytes are kept."""
        kept = bytearray()
        while chunk := await self.read():
            room = len(chunk) if limit is None else limit - len(kept)
            kept += chunk[:room]
        return bytes(kept)

    async def readline(self) -> bytes:
        """One line with its newline; the last may have none; b"" at the end.

        A line over 1 MiB comes in parts of that size. Cancellation loses nothing.
        """
        self.touched = True
        start = 0
        while (at := self._line.find(b"\n", start)) < 0 and len(self._line) < _LONGEST_LINE:
            start = len(self._line)
            chunk = await self._exec.read(self.number, _CHUNK)
            if not chunk:
                at = start - 1
                break
            self._line += chunk
        end = at + 1 if at >= 0 else min(len(self._line), _LONGEST_LINE)
        line = bytes(self._line[:end])
        del self._line[:end]
        return line

    async def lines(self) -> AsyncIterator[bytes]:
        """All lines up to the end, each as `readline` gives it."""
        while line := await self.readline():
            yield line

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.read()
        if not chunk:
            raise StopAsyncIteration
        return chunk
