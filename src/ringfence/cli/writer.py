"""A sandbox's output on one of our streams, whose reader may take its time."""

import asyncio
import os
import select
import stat
import sys
from contextlib import suppress
from typing import TextIO

from ringfence.cli.output import Escaping

_PIECE_BYTES = select.PIPE_BUF
"""What a pipe that can be written takes without waiting."""


class Writer:
    """Writes raw to files and pipes and escaped to a terminal, and only what is taken at once: a
    reader who stops, as a pager does, stops the command and nothing else. In this process Ctrl-C
    counts meanwhile, and the sandbox's lease is renewed. `close` it. raw: not escaped at all."""

    def __init__(self, stream: TextIO, *, raw: bool = False) -> None:
        terminal = stream.isatty()
        self._own = _again(stream.fileno()) if terminal else None
        self._file = stream.fileno() if self._own is None else self._own
        waits = not stat.S_ISREG(os.fstat(self._file).st_mode)
        self._most = _PIECE_BYTES if waits else sys.maxsize
        self._shown = Escaping(terminal=terminal and not raw).shown
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLOUT)
        self._waiter: asyncio.Future[None] | None = None
        self._given_up = False

    async def write(self, data: bytes) -> None:
        """Write all of it, or none of what is left after `give_up`. OSError."""
        left = memoryview(self._shown(data))
        while left and not self._given_up:
            if not self._poll.poll(0):
                await self._writable()
                continue
            try:
                left = left[os.write(self._file, left[: self._most]) :]
            except BlockingIOError:  # a terminal; or somebody else made it non-blocking
                await self._writable()

    def give_up(self) -> None:
        """Wait for the reader no more: what it does not take goes nowhere."""
        self._given_up = True
        self._wake()

    def close(self) -> None:
        """Let go of what it has opened. Idempotent."""
        own, self._own = self._own, None
        if own is not None:
            os.close(own)

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        loop.add_writer(self._file, self._wake)
        try:
            await self._waiter
        finally:
            loop.remove_writer(self._file)
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _again(terminal: int) -> int | None:
    """A terminal opened once more, so that it refuses what it has no room for: it says that it can
    be written when it takes a part of a piece, and would have us wait for the rest. The descriptor
    that we were given is our caller's, too. None where it may not be opened."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with suppress(OSError):
        return os.open(f"/proc/self/fd/{terminal}", flags)
    return None
