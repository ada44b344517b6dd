"""The steps of a sandbox's end, which leave nothing of it, whatever one of them meets."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from ringfence.backends import exhausted
from ringfence.backends.base import Instance
from ringfence.backends.finish import go_on, through
from ringfence.errors import SandboxError, StateError
from ringfence.guest.execs import Exec
from ringfence.guest.session import Session
from ringfence.sandbox.records import Records


@dataclass(frozen=True, slots=True)
class DeleteReport:
    """What deleting found and did. reason: why the sandbox ended. terminated: commands that were
    still running. seconds: how long it took. error: what could not be cleaned up, else None."""

    id: str
    reason: str
    terminated: int
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Whole:
    """All that there is of a sandbox. rest: what belongs to it besides its instance; closed after
    that."""

    id: str
    session: Session
    instance: Instance
    rest: AsyncExitStack
    records: Records

    async def delete(self, reason: str, grace: float) -> DeleteReport:
        """TERM to what runs, up to `grace` seconds, then each step, whether or not one before it
        failed."""
        begin = time.monotonic()
        errors: list[str] = []
        terminated = await _terminate(self.session, grace)
        steps: list[Callable[[], Awaitable[object]]] = [
            self.session.shutdown,
            self.instance.delete,
            self._close_rest,
            lambda: self._close_record(reason, whole=not errors),
        ]
        for step in steps:
            try:
                await through(step)
            except (SandboxError, OSError) as error:
                errors.append(str(error))
            except RuntimeError as error:
                if (what := exhausted.told(error)) is None:
                    raise
                errors.append(what)
        text = "; ".join(errors) or None
        return DeleteReport(self.id, reason, terminated, time.monotonic() - begin, text)

    async def _close_rest(self) -> None:
        """SandboxError where a part of it was left half done: the others are closed then."""
        try:
            await self.rest.aclose()
        except asyncio.CancelledError:
            go_on()
            raise StateError(
                "delete: the event loop ended meanwhile; `ringfence reap` finishes it",
                op="delete",
                sandbox_id=self.id,
            ) from None

    async def _close_record(self, reason: str, *, whole: bool) -> None:
        """The last step: what is killed before it is found by its record, and finished."""
        if whole:
            await self.records.end(self.id, reason)
        else:
            await self.records.unfinished(self.id, reason)


async def _terminate(session: Session, grace: float) -> int:
    """SIGTERM to every command that runs, then at most `grace` seconds; how many ran."""
    if session.lost.done():
        return 0
    session.resume()
    running = [op for op in session.operations() if isinstance(op, Exec) and not op.over]
    for exec_ in running:
        exec_.discard()
        if grace:  # the guest keeps it for a command that it did not tell the start of yet
            exec_.signal(15)
    if running and grace:
        try:
            await asyncio.wait([exec_.ended for exec_ in running], timeout=grace)
        except asyncio.CancelledError:  # as for `through`
            go_on()
    return len(running)
