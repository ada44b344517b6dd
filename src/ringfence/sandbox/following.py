"""A spawned command is followed to its end: both streams read, its stdin fed."""

import asyncio
import inspect
from collections.abc import AsyncIterable

from ringfence.backends.finish import finish
from ringfence.guest.execs import Exec
from ringfence.guest.protocol import STDERR, STDOUT
from ringfence.guest.request import Exit
from ringfence.sandbox.commands import Prepared, Sink


class Tap:
    """Reads one stream of a spawned exec to its end; keeps its first bytes, hands all to `sink`."""

    def __init__(self, exec_: Exec, stream: int, kept: int, sink: Sink | None) -> None:
        self._exec = exec_
        self._stream = stream
        self._room = kept
        self._sink = sink
        self.data = bytearray()

    async def run(self) -> None:
        """Until the stream's end. What the sink raises is raised."""
        while chunk := await self._exec.read(self._stream):
            if self._room:
                self.data += chunk[: self._room]
                self._room -= min(self._room, len(chunk))
            if self._sink is not None:
                answer = self._sink(chunk)
                if inspect.isawaitable(answer):
                    await answer


async def follow(exec_: Exec, prepared: Prepared, sinks: tuple[Sink | None, Sink | None]) -> Exit:
    """Read both streams of a spawned exec while feeding its stdin, and wait for its end.

    A sink's or stdin's error is raised after a kill; cancellation kills too, and is raised when
    nothing of this goes on, in place of such an error.
    """
    taps = [
        Tap(exec_, stream, prepared.kept, sink)
        for stream, sink in zip((STDOUT, STDERR), sinks, strict=True)
    ]
    source = prepared.request.stdin
    work = [asyncio.create_task(tap.run()) for tap in taps]
    feeding = None
    if isinstance(source, AsyncIterable):
        feeding = asyncio.create_task(_pour(source, exec_))
    try:
        await _all(work, feeding)
        ending = await exec_.wait()
    except BaseException:
        await finish(exec_.abandon())
        raise
    finally:
        await _stop([*work, *([feeding] if feeding else [])])
    assert isinstance(ending, Exit)  # noqa: S101 - it started
    ending.stdout, ending.stderr = (bytes(tap.data) for tap in taps)
    return ending


async def _all(work: list[asyncio.Task[None]], feeding: asyncio.Task[None] | None) -> None:
    """Until both streams ended, or the first error of any of the three."""
    waiting: set[asyncio.Task[None]] = {*work, *([feeding] if feeding else [])}
    while any(not task.done() for task in work):
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    for task in work:
        task.result()


async def _pour(source: AsyncIterable[bytes], exec_: Exec) -> None:
    async for chunk in source:
        if not await exec_.write(chunk):
            return
    exec_.write_eof()


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await finish(asyncio.gather(*tasks, return_exceptions=True))
