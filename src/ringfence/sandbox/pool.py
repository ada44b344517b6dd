"""Sandboxes that wait ready, so that a task does not wait for one to be made.

A **pool** keeps `size` warm members of one spec. `acquire` hands one out after it answered; each is
used once and deleted afterwards, never given out again, and another is made in the background. The
repository of its task may come with the pool's spec, or with `acquire` where the backend can bind
one in a sandbox that runs.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from ringfence.backends.base import Backend
from ringfence.errors import InvalidSpecError
from ringfence.events import EventBus
from ringfence.ledger import Ledger
from ringfence.policy import Ceiling
from ringfence.sandbox.acquiring import Maker, give
from ringfence.sandbox.entry import changed, open  # noqa: A004 - the library's own word
from ringfence.sandbox.sandbox import Sandbox
from ringfence.sandbox.stock import PoolStatistics, Stock
from ringfence.spec import Repository, SandboxSpec

_AHEAD_SECONDS = 0.1
"""How long a repository is bound before the next member is begun beside that."""


class Pool:
    """See the module; `ringfence.pool` makes one. Use it in an `async with`: leaving it deletes
    all that wait, while members in use stay with those who hold them."""

    def __init__(self, make: Maker, size: int, concurrency: int) -> None:
        self._make = make
        self._stock = Stock(make, size, concurrency)

    def __repr__(self) -> str:
        return f"<Pool of {self._stock.size} {self.statistics}>"

    @property
    def statistics(self) -> PoolStatistics:
        """What it did up to now."""
        self._stock.statistics.ready = len(self._stock.ready)
        return self._stock.statistics

    @asynccontextmanager
    async def acquire(
        self,
        *,
        repository: Repository | str | os.PathLike[str] | Mapping[str, Any] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> AsyncIterator[Sandbox]:
        """A healthy member for this block alone; it is deleted at its end.

        A member is made at once when none waits. Its lifetime and its idle timeout begin as it is
        handed out. repository: is bound in the member, which is then
        as if it had been opened with it; its user is the pool's, and files are for that user. A
        path is taken in mode copy. progress: called a few times a second with the number of entries
        of the repository found so far.

        Raises what `open` raises, and StateError when the pool is not open, or in another event
        loop than it was opened in. Before a member is taken: UnsupportedError where no repository
        can be bound in a sandbox that runs, InvalidSpecError when the pool's spec has one. An error
        while it is bound, or a cancellation, deletes the member and leaves nothing behind; what is
        cancelled before leaves the member waiting.
        """
        self._stock.check("pool.acquire")
        asked = None if repository is None else await self._make.asked(repository)
        sandbox = await self._stock.take()
        # Not before: making the next one would hold up the answer of this one.
        if asked is None:
            self._stock.refill()
        else:
            await self._give(sandbox, asked, progress)
        self._stock.statistics.in_use += 1
        try:
            yield sandbox
        finally:
            self._stock.statistics.in_use -= 1
            await sandbox.delete(grace=0.0)

    async def _give(
        self, sandbox: Sandbox, asked: SandboxSpec, progress: Callable[[int], None] | None
    ) -> None:
        """Bind the repository; a member in which that failed serves nobody. The next one is made
        afterwards, or meanwhile where that takes long."""
        refill = asyncio.get_running_loop().call_later(_AHEAD_SECONDS, self._stock.refill)
        try:
            await give(sandbox, asked, replace(self._make.where, progress=progress))
        except BaseException:
            await sandbox.delete(grace=0.0)
            raise
        finally:
            refill.cancel()
            self._stock.refill()

    async def fill(self) -> None:
        """Wait until `size` members are ready. Raises the first error of making one, and StateError
        as `acquire`. Cancellation changes nothing: they are made all the same."""
        await self._stock.fill()

    async def aclose(self) -> None:
        """Make no more, and delete all that wait. Idempotent; not interrupted by cancellation.
        StateError in another event loop than it was opened in."""
        await self._stock.aclose()

    async def __aenter__(self) -> Self:
        self._stock.open()
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
    InvalidSpecError for a size below 1, for what is no spec, and for a detached one, whose members
    nobody would end.
    """
    if not isinstance(spec, SandboxSpec):
        raise InvalidSpecError(
            f"pool: {spec!r} is no SandboxSpec: say what its members are",
            op="pool",
            context={"fields": ["spec"]},
        )
    if spec.detached:
        raise InvalidSpecError(
            "pool: its members end with it: leave detached out",
            op="pool",
            context={"fields": ["detached"]},
        )
    named = isinstance(backend, str)
    if named:
        spec = changed(spec, {"backend": backend})
    opening = open(
        spec,
        backend=None if named else backend,
        endpoint=endpoint,
        ceiling=ceiling,
        ledger=ledger,
        events=events,
        audit=audit,
    )
    return Pool(Maker(spec, opening), size, concurrency)
