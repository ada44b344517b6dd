"""What happens to a sandbox, as it is seen by who does not hold it."""

import asyncio
from collections.abc import Callable

from ringfence.errors import NotFoundError
from ringfence.events import Deleted, Event, LimitHit, Paused, Resumed
from ringfence.ledger import Backends, Ledger
from ringfence.ledger.reasons import CPU_TIME, IDLE, LIFETIME
from ringfence.sandbox import members
from ringfence.spec import SandboxInfo, State, Usage

_LIMITS = frozenset({CPU_TIME, IDLE, LIFETIME})
"""Reasons for an end that are limits."""


async def follow(
    name: str,
    told: Callable[[Event], object],
    *,
    interval: float = 1.0,
    ledger: Ledger | None = None,
) -> None:
    """Tell the events of the sandbox of an id (or the beginning of one) until it has ended, by a
    look every `interval` seconds: Paused, Resumed, LimitHit, and Deleted at its end.

    It takes no session. What comes and goes between two looks is not told, nor what only a holder
    knows: commands, and connections. NotFoundError for an id that is not on record, and for one
    that has ended. Cancellation changes nothing.
    """
    book = await members.book_of(ledger)
    entry = await asyncio.to_thread(book.get, name)
    if not entry.live:
        raise NotFoundError(
            f"events: sandbox {entry.record.id} has ended: {entry.reason}",
            op="events",
            sandbox_id=entry.record.id,
        )
    seen = _Seen(entry.record.id, told)
    async with Backends() as backends:
        while True:
            entry = await asyncio.to_thread(book.get, seen.id)
            info = await members.look(backends, book, entry)
            if info.state is State.EXITED or info.reason is None:  # else nobody knows its state
                usage = None
                if info.state is State.RUNNING:
                    usage = await members.usage_of(backends, entry)
                seen.take(info, usage)
            if info.state is State.EXITED:
                return
            await asyncio.sleep(interval)


class _Seen:
    """What was seen last of one sandbox."""

    def __init__(self, sandbox_id: str, told: Callable[[Event], object]) -> None:
        self.id = sandbox_id
        self._told = told
        self._paused = False
        self._kills: int | None = None
        self._refused: int | None = None

    def take(self, info: SandboxInfo, usage: Usage | None) -> None:
        """Tell what is different now."""
        if usage is not None:
            self._compare(usage)
        if info.state is State.EXITED:
            reason = info.reason or ""
            if reason in _LIMITS:
                self._told(LimitHit(sandbox_id=self.id, limit=reason))
            self._told(Deleted(sandbox_id=self.id, reason=reason))
        elif (info.state is State.PAUSED) is not self._paused:
            self._paused = not self._paused
            self._told((Paused if self._paused else Resumed)(sandbox_id=self.id))

    def _compare(self, usage: Usage) -> None:
        kills, refused = usage.oom_kills, usage.forks_refused
        if self._more(self._kills, kills):
            self._hit("memory", oom_kills=kills or 0)
        if self._more(self._refused, refused):
            self._hit("pids", forks_refused=refused or 0)
        self._kills = self._kills if kills is None else kills
        self._refused = self._refused if refused is None else refused

    @staticmethod
    def _more(before: int | None, now: int | None) -> bool:
        """Whether a counter rose since the first look."""
        return before is not None and now is not None and now > before

    def _hit(self, limit: str, **counters: float) -> None:
        self._told(LimitHit(sandbox_id=self.id, limit=limit, counters=counters))
