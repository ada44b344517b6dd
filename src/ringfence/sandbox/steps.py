"""What the steps of an opening share: whose sandbox it is, and what was made so far."""

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ringfence.backends.base import Backend
from ringfence.events import EventBus
from ringfence.ledger import Ledger
from ringfence.policy import Ceiling

if TYPE_CHECKING:
    from ringfence.workspace import Prepared as WorkspacePrepared

_ID_BYTES = 6


def new_id() -> str:
    """An id for a sandbox that is made."""
    return secrets.token_hex(_ID_BYTES)


@dataclass(frozen=True, slots=True)
class Where:
    """Whose sandbox it is besides what its spec says. backend: an object to use instead of the
    spec's name; it is not closed. endpoint: of the backend. ledger: None for this user's.
    workspace: one that was made already; the sandbox's id is its directory's name. progress: see
    `open`."""

    backend: Backend | None = None
    endpoint: str | None = None
    ceiling: Ceiling | None = None
    ledger: Ledger | None = None
    bus: EventBus | None = None
    audit: str | os.PathLike[str] | None = None
    workspace: "WorkspacePrepared | None" = None
    progress: Callable[[int], None] | None = None


class Steps:
    """What was made so far. undo: what ends when a later step fails. rest: what outlives the
    instance, on failure as in the sandbox's own life (the backend's connections, the workspace).
    last: closes the record of a failure, told whether nothing is left that is found by it."""

    def __init__(self) -> None:
        self.undo = AsyncExitStack()
        self.rest = AsyncExitStack()
        self.last: Callable[[bool], Awaitable[None]] | None = None
        self.kept: list[Callable[[], Awaitable[None]]] = []

    def beside(self, step: Coroutine[Any, Any, None]) -> "asyncio.Future[None]":
        """Begin a step that the next ones do not need; await what is returned before the end. It
        is over before anything made earlier is undone."""
        task = asyncio.ensure_future(step)
        self.undo.push_async_callback(_over, task)
        return task

    async def aclose(self) -> None:
        """Undo everything, newest first. What raises leaves the record to whoever reaps."""
        whole = False
        try:
            try:
                await self.undo.aclose()
            finally:
                await self.rest.aclose()
            whole = True
        finally:
            if self.last is not None:
                await self.last(whole)

    def keep_after(self, close: Callable[[], Awaitable[None]]) -> None:
        """Let the sandbox close this at its end; a failure to open leaves it."""
        self.kept.append(close)

    def keep(self) -> AsyncExitStack:
        """Nothing is to be undone any more; the rest now belongs to the sandbox."""
        self.undo.pop_all()
        for close in self.kept:
            self.rest.push_async_callback(close)
        return self.rest


async def _over(task: "asyncio.Future[None]") -> None:
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
