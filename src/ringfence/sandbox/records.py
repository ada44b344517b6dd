"""Where a sandbox's record is kept: the ledger, or the backend itself when that is memory."""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from ringfence.backends.base import Backend, Record
from ringfence.backends.finish import finish
from ringfence.ledger import Ledger, Owner


@runtime_checkable
class Remembering(Protocol):
    """A backend whose sandboxes live in this process only and need no durable record."""

    def record(self, sandbox_id: str) -> Record:
        """The record of one of its sandboxes; NotFoundError."""
        ...


class Records:
    """The durable record of one sandbox. Every step is carried to its end when cancelled."""

    def __init__(self, ledger: Ledger | None) -> None:
        self._ledger = ledger

    @classmethod
    async def of(cls, backend: Backend, ledger: Ledger | None) -> "Records":
        """The records for sandboxes of `backend`: `ledger`, else this user's; none in memory."""
        if isinstance(backend, Remembering):
            return cls(None)
        return cls(ledger or await asyncio.to_thread(Ledger.default))

    async def add(self, record: Record, workspace: Mapping[str, Any] | None) -> None:
        """Write down a sandbox that is about to be made, and see that somebody reaps it."""
        if self._ledger is not None:
            owner = None if record.spec.detached else Owner.me()
            await finish(asyncio.to_thread(self._add, self._ledger, record, owner, workspace))

    def _add(
        self,
        ledger: Ledger,
        record: Record,
        owner: Owner | None,
        workspace: Mapping[str, Any] | None,
    ) -> None:
        from ringfence.ledger import guard

        ledger.add(record, owner=owner, workspace=workspace)
        guard.ensure(ledger.path.parent)

    async def created(self, record: Record) -> None:
        """The backend made it."""
        if self._ledger is not None:
            await finish(asyncio.to_thread(self._ledger.created, record))

    async def extend(self, sandbox_id: str, ends: float) -> None:
        """Its end was set anew, in seconds since the epoch. StateError when it ended already."""
        if self._ledger is not None:
            await finish(asyncio.to_thread(self._ledger.extend, sandbox_id, ends))

    async def end(self, sandbox_id: str, reason: str) -> None:
        """It is gone; the first reason stays."""
        if self._ledger is not None:
            await finish(asyncio.to_thread(self._ledger.end, sandbox_id, reason))
