"""Where a sandbox's record is kept: the ledger, or the backend itself when that is memory."""

import asyncio
import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from ringfence.backends import exhausted
from ringfence.backends.base import Backend, Record
from ringfence.backends.finish import finish
from ringfence.errors import AlreadyExistsError
from ringfence.ledger import Busy, Entry, Ledger, Owner, guard
from ringfence.ledger.reasons import CREATE_FAILED
from ringfence.spec import SandboxSpec


@runtime_checkable
class Remembering(Protocol):
    """A backend whose sandboxes live in this process only and need no durable record."""

    def record(self, sandbox_id: str) -> Record:
        """The record of one of its sandboxes; NotFoundError."""
        ...


@functools.cache
def _remembers(kind: type) -> bool:
    """Asked once for each kind of backend: the answer takes longer than a look into a file."""
    return issubclass(kind, Remembering)


class Records:
    """The durable record of one sandbox. Every step is carried to its end when cancelled.

    ledger: None keeps no record, unless it is this user's `default` one that is to be looked for
    when the first step needs it, and is kept to then.
    """

    def __init__(self, ledger: Ledger | None, *, default: bool = False) -> None:
        self._ledger = ledger
        self._default = default

    @classmethod
    def of(cls, backend: Backend, ledger: Ledger | None) -> "Records":
        """The records for sandboxes of `backend`: `ledger`, else this user's; none in memory."""
        if _remembers(type(backend)):
            return cls(None)
        return cls(ledger, default=True)

    async def add(self, record: Record, workspace: Mapping[str, Any] | None = None) -> None:
        """Write down a sandbox that is about to be made, and see that somebody reaps it. It is
        ours, a detached one until it is `created`."""
        await self._step(
            lambda ledger: ledger.add(record, owner=Owner.me(), workspace=workspace), reaped=True
        )

    async def created(self, record: Record) -> None:
        """The backend made it."""
        await self._step(lambda ledger: ledger.created(record))

    async def failed(self, record: Record, *, left: bool) -> None:
        """It was not made, whether it was written down before or not. left: whether something of it
        is, with which whoever reaps goes on."""
        await self._step(lambda ledger: _failed(ledger, record, left), reaped=left)

    async def extend(self, sandbox_id: str, ends: float) -> None:
        """Its end was set anew, in seconds since the epoch. StateError when it ended already."""
        await self._step(lambda ledger: ledger.extend(sandbox_id, ends))

    async def changed(
        self, sandbox_id: str, spec: SandboxSpec, workspace: Mapping[str, Any] | None = None
    ) -> None:
        """Its limits were changed, or it is about to get a repository. StateError when it ended
        already."""
        await self._step(lambda ledger: ledger.changed(sandbox_id, spec, workspace))

    async def unfinished(self, sandbox_id: str, reason: str) -> None:
        """Something of it could not be removed: whoever reaps goes on with that."""
        await self._step(lambda ledger: ledger.unfinished(sandbox_id, reason))

    async def gone(self, entry: Entry) -> None:
        """Its instance was found gone; see `Ledger.gone`."""
        await self._step(lambda ledger: ledger.gone(entry))

    async def end(self, sandbox_id: str, reason: str) -> None:
        """It is gone; the first reason stays."""
        await self._step(lambda ledger: ledger.end(sandbox_id, reason))

    async def _step(self, step: Callable[[Ledger], object], *, reaped: bool = False) -> None:
        """reaped: see to it after the step that somebody reaps."""
        at_hand = self._ledger or (Ledger.at_hand() if self._default else None)
        if at_hand is not None:
            self._ledger = at_hand
            with contextlib.suppress(Busy):
                step(at_hand.hasty())
                start = guard.missing(at_hand.path.parent) if reaped else None
                if start is not None:
                    await _aside(start)
                return
        elif not self._default:
            return

        def take() -> None:
            ledger = self._ledger = self._ledger or Ledger.default()
            step(ledger)
            if reaped:
                guard.ensure(ledger.path.parent)

        await _aside(take)


async def _aside(step: Callable[[], object]) -> None:
    """Take it in another thread, once and to its end."""
    steps = [step]

    def take() -> None:
        if steps:  # a thread may come to it later all the same
            steps.pop()()

    try:
        taking = asyncio.get_running_loop().run_in_executor(None, take)
    except RuntimeError as error:
        if exhausted.told(error) is None:
            raise
        take()  # the event loop waits for the file's sake: nobody else would write it down
    else:
        await finish(taking)


def _failed(ledger: Ledger, record: Record, left: bool) -> None:
    with contextlib.suppress(AlreadyExistsError):
        ledger.add(record, owner=None)
    (ledger.unfinished if left else ledger.end)(record.id, CREATE_FAILED)
