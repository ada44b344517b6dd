"""A command that was spawned: its streams, its signals and its end.

A **process** here is one exec of the guest: the main process and its whole family. Life: started
by `Sandbox.spawn` (or found again by `Sandbox.attach`), read and written, then waited for. Leaving
its `async with` kills the family, unless it was spawned with hold=True: then it is detached.
"""

import asyncio
import signal as signals
from collections.abc import AsyncIterable
from types import TracebackType
from typing import Self

from ringfence.backends.finish import finish
from ringfence.errors import InvalidSpecError, NotFoundError, StateError
from ringfence.guest.execs import LAST_SIGNAL, Exec
from ringfence.guest.given import content, whole_number
from ringfence.guest.protocol import STDERR, STDOUT
from ringfence.guest.request import Exit
from ringfence.sandbox.commands import Prepared
from ringfence.sandbox.ending import result
from ringfence.sandbox.following import Tap
from ringfence.sandbox.measuring import Measured
from ringfence.sandbox.stream import Stream
from ringfence.spec import ExecResult


class Process:
    """A running or ended command; see the module."""

    def __init__(
        self,
        exec_: Exec,
        prepared: Prepared,
        *,
        held: bool = False,
        measured: Measured | None = None,
    ) -> None:
        self._measured = measured
        self._exec = exec_
        self._prepared = prepared
        self._held = held
        self._collecting: list[tuple[asyncio.Task[None], Tap]] = []
        self._feeding: asyncio.Task[None] | None = None
        self._feed_error: BaseException | None = None
        self.stdout = Stream(exec_, STDOUT)
        self.stderr = Stream(exec_, STDERR)
        source = prepared.request.stdin
        if isinstance(source, AsyncIterable):
            self._feeding = asyncio.create_task(self._feed(source))

    def __repr__(self) -> str:
        state = "running" if self.running else "ended"
        return f"<Process {self.id} pid {self.pid} {self.args!r} {state}>"

    @property
    def id(self) -> int:
        """Its number in this sandbox, for `Sandbox.attach`."""
        return self._exec.id

    @property
    def pid(self) -> int:
        """The main process's id inside the sandbox."""
        return self._exec.pid

    @property
    def args(self) -> tuple[str, ...]:
        """The arguments it was started with."""
        return self._prepared.args

    @property
    def running(self) -> bool:
        """Whether its end has not been seen yet."""
        return not self._exec.over

    @property
    def exec(self) -> Exec:
        """The guest session's view of it."""
        return self._exec

    async def write(self, data: bytes | str) -> None:
        """Send all of `data` (text: UTF-8) to its stdin; waits while the command does not read.

        StateError when it has ended, its stdin was closed or given at the start, or it was attached
        to in a sandbox whose guest is older. Cancellation leaves a part of it sent: `stdin_total`.
        """
        sent = data.encode() if isinstance(data, str) else content(data, "data")
        if not await self._exec.write(sent) and sent:
            raise StateError(f"stdin: exec {self.id} {self._exec.unwritable}", op="exec.write")

    def close_stdin(self) -> None:
        """End its stdin. Idempotent."""
        self._exec.write_eof()

    @property
    def stdin_total(self) -> int | None:
        """Bytes written to its stdin so far, here and by whoever had it before, as far as they
        arrived: what is before that is the command's, once, and what is not did not arrive. None
        for one that was attached to in a sandbox whose guest is older."""
        return self._exec.stdin_total

    def signal(self, number: int | str, *, group: bool = False) -> None:
        """Send a signal ("TERM", "SIGTERM", 15) to the main process, or to its process group."""
        self._exec.signal(signal_number(number), group=group)

    def kill(self) -> None:
        """Kill its whole family with SIGKILL; after its end, what it left running."""
        self._exec.kill()

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal. InvalidSpecError for sizes out of 1 to 65535; StateError
        for a command that was spawned without a terminal."""
        if not self._exec.terminal:
            raise StateError(
                f"resize: exec {self.id} has no terminal: spawn it with pty=True", op="exec.resize"
            )
        self._exec.resize(rows, columns)

    async def wait(self) -> ExecResult:
        """How it ended, once it has.

        Output that nobody began to read is collected into the result, up to the sandbox's output
        limit; a stream that somebody reads is theirs, and empty in the result, which then says of
        it that it is truncated. Raises what the iterable of its stdin raised, after a kill.
        Cancellation changes nothing: wait again.
        """
        if not self._collecting:
            self._collecting = [self._collect(self.stdout), self._collect(self.stderr)]
        await asyncio.wait([task for task, _ in self._collecting])
        ending = await self._exec.wait()
        if self._measured is not None:
            await self._measured.end(ending)
        if self._feed_error is not None:
            raise self._feed_error
        if not isinstance(ending, Exit):
            raise NotFoundError(f"exec {self.id} is not held any more", op="exec.wait")
        ending.stdout, ending.stderr = (bytes(tap.data) for _, tap in self._collecting)
        return result(self._prepared.args, ending, self._prepared.cpu_limit)

    def _collect(self, stream: Stream) -> tuple[asyncio.Task[None], Tap]:
        tap = Tap(self._exec, stream.number, self._prepared.kept, None)
        untouched = not stream.touched
        stream.touched = True
        return asyncio.create_task(tap.run() if untouched else asyncio.sleep(0)), tap

    async def communicate(self, data: bytes | str = b"") -> ExecResult:
        """Write `data`, end its stdin and wait, while its output is collected.

        What it did not read before its end is no error. StateError for data when its stdin was
        closed or given at the start. Cancellation leaves a part of it sent.
        """
        waiting = asyncio.ensure_future(self.wait())
        try:
            if data and self.running:
                await self._write_until_end(data)
            self.close_stdin()
            return await waiting
        finally:
            waiting.cancel()
            await asyncio.wait([waiting])

    async def _write_until_end(self, data: bytes | str) -> None:
        try:
            await self.write(data)
        except StateError:
            if self.running:
                raise

    def detach(self) -> None:
        """Let it go on without a reader; `Sandbox.attach(process.id)` finds it again.

        StateError unless it was spawned with hold=True.
        """
        if not self._held:
            raise StateError(f"exec {self.id} was not spawned with hold=True", op="exec.detach")
        self._exec.discard()

    async def aclose(self) -> None:
        """Kill its family and wait until it is gone (5 s at most); a held one is detached.

        Idempotent. Cancellation does not interrupt that, and is raised after it.
        """
        tasks = [task for task, _ in self._collecting]
        tasks += [] if self._feeding is None else [self._feeding]
        for task in tasks:
            task.cancel()
        await finish(self._leave())
        if tasks:
            await asyncio.wait(tasks)

    async def _leave(self) -> None:
        try:
            if self._held:
                self._exec.discard()
            else:
                await self._exec.abandon()
        finally:
            if self._measured is not None:
                await self._measured.end(self._exec.ending)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _feed(self, source: AsyncIterable[bytes]) -> None:
        try:
            async for chunk in source:
                if not await self._exec.write(content(chunk, "stdin")):
                    return
            self._exec.write_eof()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._feed_error = error
            self._exec.kill()


def signal_number(name: int | str) -> int:
    """The number of a signal such as "TERM", "SIGTERM" or 15. InvalidSpecError."""
    try:
        if isinstance(name, str):
            return signals.Signals["SIG" + name.removeprefix("SIG")].value
        return whole_number(name, "signal", LAST_SIGNAL, 1)
    except (KeyError, InvalidSpecError):
        pass
    raise InvalidSpecError(
        f"signal: {name!r} is none: write one such as 'TERM' or 15",
        op="signal",
        context={"fields": ["signal"]},
    )
