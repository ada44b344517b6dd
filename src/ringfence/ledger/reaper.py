"""Finish what a process left behind: its sandboxes, their mounts, their lines in the ledger."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ringfence.backends import registry
from ringfence.backends.base import Backend, Instance
from ringfence.errors import BackendUnavailableError, NotFoundError, SandboxError
from ringfence.ledger.entry import Entry
from ringfence.ledger.store import KEPT_SECONDS, Ledger
from ringfence.spec import State

LOST = "its client ended"
EXPIRED = "its lifetime ended"
GONE = "it ended or was removed outside Ringfence"

Load = Callable[[str, str | None], Backend]


@dataclass(frozen=True, slots=True)
class Reaped:
    """What one sweep did with one sandbox. error: why it is still there, None when it is gone."""

    id: str
    reason: str
    error: str | None = None


async def reap(
    ledger: Ledger, *, load: Load = registry.load, now: float | None = None, probe: bool = True
) -> list[Reaped]:
    """Delete every sandbox whose client or lifetime ended and close the entries of those that are
    gone. probe: ask the backends for those that should be alive, too.

    now: seconds since the epoch, for tests; None goes by the clock since boot. One sandbox's
    failure does not stop the others. Cancellation stops between two sandboxes; what was begun is
    found by the next sweep.
    """
    backends: dict[tuple[str, str], Backend] = {}
    done = []
    try:
        for entry in ledger.live():
            reason = _due(entry, now)
            if reason is None and not probe:
                continue
            key = (entry.record.backend, entry.record.endpoint)
            if key not in backends:
                backends[key] = load(key[0], key[1] or None)
            outcome = await _settle(ledger, entry, backends[key], reason)
            done += [outcome] if outcome else []
    finally:
        for backend in backends.values():
            await backend.aclose()
    ledger.forget((time.time() if now is None else now) - KEPT_SECONDS)
    return done


def _due(entry: Entry, now: float | None) -> str | None:
    if entry.expired(now):
        return EXPIRED
    if entry.owner is not None and not entry.owner.alive():
        return LOST
    return None


async def _settle(
    ledger: Ledger, entry: Entry, backend: Backend, reason: str | None
) -> Reaped | None:
    try:
        instance = await _find(backend, entry)
        if instance is None and reason is None and not entry.record.native:
            return None
        if instance is not None and reason is None and await instance.state() is not State.EXITED:
            return None
        if instance is not None:
            await instance.delete()
        if entry.workspace is not None:
            from ringfence.workspace import clean

            await asyncio.to_thread(clean, entry.workspace)
    except BackendUnavailableError as error:
        return Reaped(entry.record.id, reason or GONE, str(error)) if reason else None
    except (SandboxError, OSError) as error:
        return Reaped(entry.record.id, reason or GONE, str(error))
    ledger.end(entry.record.id, reason or GONE)
    return Reaped(entry.record.id, reason or GONE)


async def _find(backend: Backend, entry: Entry) -> Instance | None:
    """Its instance; one whose creator died before it could write down the name is looked for."""
    record = entry.record
    if not record.native:
        found = [one for one in await backend.found({}) if one.id == record.id]
        if not found:
            return None
        record = replace(record, native=found[0].native)
    try:
        return await backend.attach(record)
    except NotFoundError:
        return None
