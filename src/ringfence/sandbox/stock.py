"""The members of a pool that wait: made ahead, looked at before they are given out, replaced.

The **stock** makes members in the background until `size` of them wait. One that ends while it
waits, or does not answer when it is asked for, is deleted, and another is made in its place.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from ringfence.backends.finish import begun, finish
from ringfence.errors import GuestError, SandboxLostError, StateError
from ringfence.guest.given import whole_number
from ringfence.sandbox.acquiring import Maker
from ringfence.sandbox.loop import running, runs
from ringfence.sandbox.sandbox import Sandbox, context_of

_MOST = 1_000_000
_SILENT_SECONDS = 2.0
"""How long a member has to answer: one that somebody froze holds up nobody."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds between attempts to make a member while they fail."""


@dataclass(slots=True)
class PoolStatistics:
    """What a pool did. ready: members that wait. hits: acquired without waiting. misses: made
    while the caller waited. unhealthy: warm ones that ended or did not answer and were replaced.
    wait_seconds: that callers of `acquire` waited in all."""

    ready: int = 0
    in_use: int = 0
    created: int = 0
    hits: int = 0
    misses: int = 0
    unhealthy: int = 0
    failures: int = 0
    wait_seconds: float = 0.0


class Stock:
    """See the module. ready: those that wait, oldest first, each with what ends its use by
    the pool. statistics: of the whole pool; what is done with a member that was taken, the pool
    counts."""

    def __init__(self, make: Maker, size: int, concurrency: int) -> None:
        whole_number(size, "size", _MOST, 1)
        whole_number(concurrency, "concurrency", _MOST, 1)
        self.size = size
        self.ready: dict[Sandbox, Callable[[], None]] = {}
        self.statistics = PoolStatistics()
        self._make = make
        self._concurrency = concurrency
        self._making: set[asyncio.Task[None]] = set()
        self._deleting: set[asyncio.Task[object]] = set()
        self._pause = 0.0
        self._open = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Begin to make members. StateError when it has begun."""
        if self._open:
            raise StateError("pool: it is open already: make another one", op="pool")
        self._open, self._loop = True, running("pool")
        self.refill()

    def check(self, op: str) -> None:
        """Raise StateError unless it is open, and in this event loop."""
        if not self._open:
            raise StateError("pool: it is not open: use `async with`", op=op)
        self._check_loop(op)

    def _check_loop(self, op: str) -> None:
        if not runs(self._loop):
            raise StateError(
                "pool: it belongs to the event loop that opened it: open one where it is used",
                op=op,
            )

    async def take(self) -> Sandbox:
        """One that answers, made now when none waits; the caller says when to `refill`."""
        begin = time.monotonic()
        try:
            while True:
                self.check("pool.acquire")
                if not self.ready:
                    sandbox = await self._made_now()
                    self.statistics.misses += 1
                    return sandbox
                sandbox = self._oldest()
                if await self._healthy(sandbox):
                    self.statistics.hits += 1
                    return sandbox
                self.statistics.unhealthy += 1
                self.refill()
        finally:
            self.statistics.wait_seconds += time.monotonic() - begin

    def _oldest(self) -> Sandbox:
        sandbox = next(iter(self.ready))
        self.ready.pop(sandbox)()
        return sandbox

    async def _made_now(self) -> Sandbox:
        sandbox = await self._make()
        self.statistics.created += 1
        return sandbox

    async def _healthy(self, sandbox: Sandbox) -> bool:
        try:
            async with asyncio.timeout(_SILENT_SECONDS):
                well = await sandbox.answers()
            if well and await _begins(sandbox):
                return True
        except TimeoutError:
            pass
        except BaseException:
            await self._keep(sandbox)
            raise
        self._discard(sandbox)
        return False

    async def _keep(self, sandbox: Sandbox) -> None:
        """Let it wait, which is no idleness, and another one in its place when it ends meanwhile;
        for a pool that was closed it is too late."""
        if not self._open:
            await sandbox.delete(grace=0.0)
            return
        life = context_of(sandbox).life
        self.ready[sandbox] = life.use()
        lost = life.session.lost
        lost.remove_done_callback(self._lost)  # it may have waited before
        lost.add_done_callback(self._lost)

    def _lost(self, _: object) -> None:
        for sandbox in [one for one in self.ready if context_of(one).session.lost.done()]:
            del self.ready[sandbox]
            self.statistics.unhealthy += 1
            self._discard(sandbox)
            # What ends at once is not made at once again and again.
            self._pause = max(self._pause, _FIRST_PAUSE)
        self.refill()

    def _discard(self, sandbox: Sandbox) -> None:
        task: asyncio.Task[object] = asyncio.create_task(begun(sandbox.delete(grace=0.0)))
        self._deleting.add(task)
        task.add_done_callback(self._deleting.discard)

    def refill(self) -> None:
        """Make what is missing, beside what runs."""
        while (
            self._open
            and len(self._making) < self._concurrency
            and len(self.ready) + len(self._making) < self.size
        ):
            task = asyncio.create_task(self._add())
            self._making.add(task)
            task.add_done_callback(self._made)

    def _made(self, task: asyncio.Task[None]) -> None:
        self._making.discard(task)
        if task.cancelled():
            return
        if task.exception() is not None:  # whatever it is: whoever waits hears it of their own
            self.statistics.failures += 1
            self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        self.refill()

    async def _add(self) -> None:
        if self._pause:
            await asyncio.sleep(self._pause)
        sandbox = await self._made_now()
        self._pause = 0.0
        await self._keep(sandbox)

    async def fill(self) -> None:
        """See `Pool.fill`."""
        self.check("pool.fill")
        while len(self.ready) < self.size:
            self.refill()
            failed = self.statistics.failures
            await asyncio.wait(self._making, return_when=asyncio.FIRST_COMPLETED)
            self.check("pool.fill")
            if self.statistics.failures > failed:
                await self._keep(await self._made_now())
                self.check("pool.fill")

    async def aclose(self) -> None:
        """See `Pool.aclose`."""
        if self._loop is not None:
            self._check_loop("pool.aclose")
        self._open = False
        await finish(self._drain())

    async def _drain(self) -> None:
        for sandbox in self.ready:
            self._discard(sandbox)
        self.ready.clear()
        for task in self._making:
            task.cancel()
        if self._making:
            await asyncio.wait(set(self._making))
        while self._deleting:
            await asyncio.wait(set(self._deleting))


async def _begins(sandbox: Sandbox) -> bool:
    """Begin its lifetime anew, for whoever gets it; whether it lives."""
    lifetime = sandbox.spec.lifetime
    if lifetime is None:
        return True
    try:
        await sandbox.extend(lifetime)
    except (SandboxLostError, StateError, GuestError):
        return False
    return True
