"""One command in the sandbox, seen from the host."""

import asyncio

from ringfence.errors import SandboxLostError
from ringfence.guest.exec_life import ExecLife
from ringfence.guest.given import whole_number
from ringfence.guest.pieces import CHUNK_BYTES
from ringfence.guest.protocol import STDERR, STDOUT, U32, Ask
from ringfence.guest.request import Exit, NotStarted
from ringfence.guest.streams import Input

LAST_SIGNAL = 64
LAST_COLUMN = 65535
ABANDON_SECONDS = 5.0
"""How long a killed exec may take to be gone before its sandbox is given up."""


class Exec(ExecLife):
    """A command, from EXEC to EXIT, and what is done with it.

    A command whose output nobody reads waits.
    """

    __slots__ = ()

    def open_stdin(self, sent: int = 0, acked: int = 0) -> Input:
        """The exec's input stream. sent, acked: bytes of it in earlier sessions."""
        connection, operation_id = self._connection, self.id
        self.stdin = Input(
            lambda chunk: connection.send(Ask.STDIN, operation_id, chunk), sent=sent, acked=acked
        )
        return self.stdin

    @property
    def stdin_total(self) -> int | None:
        """Bytes that were sent to its stdin, those of earlier sessions that arrived included; None
        where the guest does not tell."""
        return 0 if self.stdin is None else self.stdin.total

    @property
    def unwritable(self) -> str:
        """Why nothing can be written to its stdin, in words that follow on its name."""
        if self.taken_over:
            return "was attached to again: its stdin is that one's"
        if self.stdin is None and not self.over:
            return "got all of its stdin when it was started"
        return "does not take input any more: it ended, or its stdin was closed"

    async def read(self, stream: int = STDOUT, size: int = CHUNK_BYTES) -> bytes:
        """1 to `size` bytes of STDOUT or STDERR as soon as there are any; b"" at the end.

        The end is the exec's end; after a lost sandbox it is the end of what was received.
        Cancellation loses nothing. One reader per stream.
        """
        output = self.stdout if stream == STDOUT else self.stderr
        while not output.data:
            if self.over:
                return b""
            await output.wait()
        chunk = output.take(size)
        if output.wants_ack and not self.over:
            self._ack(stream, output)
        return chunk

    async def write(self, data: bytes | memoryview) -> bool:
        """Send all of `data` to its stdin; False when the exec ended before taking it.

        Waits while the command does not read. Cancellation leaves a part of it sent.
        """
        return self.stdin is not None and await self.stdin.write(data)

    def write_eof(self) -> None:
        """End its stdin. Idempotent."""
        if self.stdin is not None:
            self.stdin.close()

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send signal `number` to its main process, or to that one's process group."""
        whole_number(number, "signal", LAST_SIGNAL, 1)
        if not self.over:
            self._connection.send(Ask.SIGNAL, self.id, U32.pack(number) + bytes((group,)))

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal."""
        whole_number(rows, "rows", LAST_COLUMN, 1)
        whole_number(columns, "columns", LAST_COLUMN, 1)
        if not self.ended.done():
            size = rows.to_bytes(2, "little") + columns.to_bytes(2, "little")
            self._connection.send(Ask.RESIZE, self.id, size)

    def kill(self) -> None:
        """Kill its whole family; after its end, what it left running.

        Output that nobody reads does not hold up its end any more: what is above a window is
        dropped.
        """
        self._connection.send(Ask.KILL, self.id)
        if not self.over:
            for stream, output in ((STDOUT, self.stdout), (STDERR, self.stderr)):
                output.open_wide()
                self._ack(stream, output)

    def discard(self) -> None:
        """Drop all output, past and to come, so that nothing waits for a reader."""
        for stream, output in ((STDOUT, self.stdout), (STDERR, self.stderr)):
            output.discard()
            if not self.over:
                self._ack(stream, output)

    async def wait(self) -> Exit | NotStarted:
        """How it ended, once it has; the output that was not read can still be read.

        The end comes after all output, so read it, discard() it or kill(). Cancellation changes
        nothing. NotStarted comes only for an exec that was attached to. StateError once it was
        attached to again.
        """
        return await asyncio.shield(self.ended)

    async def abandon(self) -> None:
        """Kill it and wait until it is gone, at most 5 s.

        A cancellation meanwhile does not interrupt that, and is raised after it. A guest that does
        not manage is given up: the session is lost.
        """
        if self.over:
            return
        if self.ended.cancelled():
            # The awaiting task's cancellation took the future along; the exec itself goes on.
            self.ended = asyncio.get_running_loop().create_future()
        self.discard()
        self.kill()
        clock = asyncio.get_running_loop().time
        until = clock() + ABANDON_SECONDS
        cancelled: asyncio.CancelledError | None = None
        while not self.over and (left := until - clock()) > 0:
            try:
                await asyncio.wait([self.ended], timeout=left)
            except asyncio.CancelledError as error:
                cancelled = error
        if not self.over:
            self._connection.lose(
                SandboxLostError(f"its guest did not kill exec {self.id} within 5 s", op="exec")
            )
        if cancelled is not None:
            raise cancelled
