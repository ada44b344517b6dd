"""Sandboxes that wait ready, so that a task does not wait for one to be made.

A **pool** keeps `size` warm members of one spec. `acquire` hands one out after it answered; each is
used once and deleted afterwards, never given out again, and another is made in the background. The
repository of its task may come with the pool's spec, or with `acquire` where the backend can bind
one in a sandbox that runs.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from ringfence.backends.base import Backend
from ringfence.backends.finish import finish
from ringfence.errors import InvalidSpecError, StateError
from ringfence.events import EventBus
from ringfence.guest.given import whole_number
from ringfence.ledger import Ledger
from ringfence.policy import Ceiling
from ringfence.sandbox.acquiring import Maker, give
from ringfence.sandbox.entry import open  # noqa: A004 - the library's own word
from ringfence.sandbox.loop import running
from ringfence.sandbox.sandbox import Sandbox
from ringfence.spec import Repository, SandboxSpec

_MOST = 1_000_000
_AHEAD_SECONDS = 0.1
"""How long a repository is bound before the next member is begun beside that."""
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


class Pool:
    """See the module; `ringfence.pool` makes one. Use it in an `async with`: leaving it deletes
    all that wait, while members in use stay with those who hold them."""

    def __init__(self, make: Maker, size: int, concurrency: int) -> None:
        whole_number(size, "size", _MOST, 1)
        whole_number(concurrency, "concurrency", _MOST, 1)
        self._make = make
        self._size = size
        self._concurrency = concurrency
        self._ready: deque[Sandbox] = deque()
        self._making: set[asyncio.Task[None]] = set()
        self._deleting: set[asyncio.Task[object]] = set()
        self._pause = 0.0
        self._open = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._statistics = PoolStatistics()

    def __repr__(self) -> str:
        return f"<Pool of {self._size} {self.statistics}>"

    @property
    def statistics(self) -> PoolStatistics:
        """What it did up to now."""
        self._statistics.ready = len(self._ready)
        return self._statistics

    @asynccontextmanager
    async def acquire(
        self,
        *,
        repository: Repository | str | os.PathLike[str] | Mapping[str, Any] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> AsyncIterator[Sandbox]:
        """A healthy member for this block alone; it is deleted at its end.

        A member is made at once when none waits. repository: is bound in the member, which is then
        as if it had been opened with it; its user is the pool's, and files are for that user. A
        path is taken in mode copy. progress: called a few times a second with the number of entries
        of the repository found so far.

        Raises what `open` raises, and StateError when the pool is not open, or in another event
        loop than it was opened in. Before a member is taken: UnsupportedError where no repository
        can be bound in a sandbox that runs, InvalidSpecError when the pool's spec has one. An error
        while it is bound, or a cancellation, deletes the member and leaves nothing behind; what is
        cancelled before leaves the member waiting.
        """
        self._check("pool.acquire")
        asked = None if repository is None else await self._make.asked(repository)
        sandbox = await self._take()
        # Not before: making the next one would hold up the answer of this one.
        if asked is None:
            self._refill()
        else:
            await self._give(sandbox, asked, progress)
        self._statistics.in_use += 1
        try:
            yield sandbox
        finally:
            self._statistics.in_use -= 1
            await sandbox.delete(grace=0.0)

    async def _give(
        self, sandbox: Sandbox, asked: SandboxSpec, progress: Callable[[int], None] | None
    ) -> None:
        """Bind the repository; a member in which that failed serves nobody. The next one is made
        afterwards, or meanwhile where that takes long."""
        refill = asyncio.get_running_loop().call_later(_AHEAD_SECONDS, self._refill)
        try:
            await give(sandbox, asked, replace(self._make.where, progress=progress))
        except BaseException:
            await sandbox.delete(grace=0.0)
            raise
        finally:
            refill.cancel()
            self._refill()

    async def _take(self) -> Sandbox:
        begin = time.monotonic()
        try:
            while True:
                self._check("pool.acquire")
                if not self._ready:
                    self._statistics.misses += 1
                    sandbox = await self._make()
                    self._statistics.created += 1
                    return sandbox
                sandbox = self._ready.popleft()
                if await self._healthy(sandbox):
                    self._statistics.hits += 1
                    return sandbox
                self._statistics.unhealthy += 1
                self._refill()
        finally:
            self._statistics.wait_seconds += time.monotonic() - begin

    def _check(self, op: str) -> None:
        if not self._open:
            raise StateError("pool: it is not open: use `async with`", op=op)
        if asyncio.get_running_loop() is not self._loop:
            raise StateError(
                "pool: it belongs to the event loop that opened it: open one where it is used",
                op=op,
            )

    async def _healthy(self, sandbox: Sandbox) -> bool:
        try:
            async with asyncio.timeout(_SILENT_SECONDS):
                if await sandbox.answers():
                    return True
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            await self._keep(sandbox)
            raise
        self._discard(sandbox)
        return False

    async def _keep(self, sandbox: Sandbox) -> None:
        """Let it wait, and another one in its place when it ends meanwhile; for a pool that was
        closed it is too late."""
        if not self._open:
            await sandbox.delete(grace=0.0)
            return
        self._ready.append(sandbox)
        lost = sandbox._context.session.lost
        lost.remove_done_callback(self._lost)  # it may have waited before
        lost.add_done_callback(self._lost)

    def _lost(self, _: object) -> None:
        for sandbox in [one for one in self._ready if one._context.session.lost.done()]:
            self._ready.remove(sandbox)
            self._statistics.unhealthy += 1
            self._discard(sandbox)
            # What ends at once is not made at once again and again.
            self._pause = max(self._pause, _FIRST_PAUSE)
        self._refill()

    def _discard(self, sandbox: Sandbox) -> None:
        task: asyncio.Task[object] = asyncio.create_task(sandbox.delete(grace=0.0))
        self._deleting.add(task)
        task.add_done_callback(self._deleting.discard)

    def _refill(self) -> None:
        while (
            self._open
            and len(self._making) < self._concurrency
            and len(self._ready) + len(self._making) < self._size
        ):
            task = asyncio.create_task(self._add())
            self._making.add(task)
            task.add_done_callback(self._made)

    def _made(self, task: asyncio.Task[None]) -> None:
        self._making.discard(task)
        if task.cancelled():
            return
        if task.exception() is not None:  # whatever it is: whoever waits hears it of their own
            self._statistics.failures += 1
            self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._refill()

    async def _add(self) -> None:
        if self._pause:
            await asyncio.sleep(self._pause)
        sandbox = await self._make()
        self._pause = 0.0
        self._statistics.created += 1
        await self._keep(sandbox)

    async def fill(self) -> None:
        """Wait until `size` members are ready. Raises the first error of making one, and StateError
        as `acquire`. Cancellation changes nothing: they are made all the same."""
        self._check("pool.fill")
        while len(self._ready) < self._size:
            self._refill()
            failed = self._statistics.failures
            await asyncio.wait(self._making, return_when=asyncio.FIRST_COMPLETED)
            self._check("pool.fill")
            if self._statistics.failures > failed:
                sandbox = await self._make()
                self._statistics.created += 1
                await self._keep(sandbox)
                self._check("pool.fill")

    async def aclose(self) -> None:
        """Make no more, and delete all that wait. Idempotent; not interrupted by cancellation."""
        self._open = False
        await finish(self._drain())

    async def _drain(self) -> None:
        for task in self._making:
            task.cancel()
        if self._making:
            await asyncio.wait(set(self._making))
        for sandbox in self._ready:
            self._discard(sandbox)
        self._ready.clear()
        while self._deleting:
            await asyncio.wait(set(self._deleting))

    async def __aenter__(self) -> Self:
        if self._open:
            raise StateError("pool: it is open already: make another one", op="pool")
        self._open, self._loop = True, running("pool")
        self._refill()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def pool(
    spec: SandboxSpec,
    *,
    size: int = 4,
    concurrency: int = 4,
    backend: str | Backend | None = None,
    endpoint: str | None = None,
    ceiling: Ceiling | None = None,
    ledger: Ledger | None = None,
    events: EventBus | None = None,
    audit: str | os.PathLike[str] | None = None,
) -> Pool:
    """A pool of `size` warm sandboxes of `spec`: `async with ringfence.pool(spec, size=8) as pool`,
    then `async with pool.acquire() as sandbox`, or `acquire(repository=".")`.

    concurrency: how many are made at a time. The other keywords are those of `open`; the audit
    log has the events of all members.
    InvalidSpecError for a size below 1 and for a detached spec, whose members nobody would end.
    """
    if spec.detached:
        raise InvalidSpecError(
            "pool: its members end with it: leave detached out",
            op="pool",
            context={"fields": ["detached"]},
        )
    opening = open(
        spec,
        backend=backend,
        endpoint=endpoint,
        ceiling=ceiling,
        ledger=ledger,
        events=events,
        audit=audit,
    )
    return Pool(Maker(spec, opening), size, concurrency)
