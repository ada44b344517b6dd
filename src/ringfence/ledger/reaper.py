"""Finish what a process left behind: its sandboxes, their mounts, their lines in the ledger."""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from ringfence.backends import owned
from ringfence.backends.base import Instance, Record
from ringfence.backends.owner import Owner
from ringfence.errors import BackendUnavailableError, SandboxError
from ringfence.ledger.backends import Backends, Load
from ringfence.ledger.cleaning import clean
from ringfence.ledger.entry import Claim, Entry
from ringfence.ledger.reasons import CLIENT_LOST, CPU_TIME, LIFETIME
from ringfence.ledger.spent import is_spent
from ringfence.ledger.store import KEPT_SECONDS, Ledger
from ringfence.spec import State


@dataclass(frozen=True, slots=True)
class Reaped:
    """What one sweep did with one sandbox. reason: one of `reasons`. error: why it is still there,
    None when it is gone."""

    id: str
    reason: str
    error: str | None = None


@runtime_checkable
class Discarding(Protocol):
    """A backend on which the making of a sandbox can leave what is no instance yet."""

    async def discard(self, sandbox_id: str) -> None:
        """Remove it. Idempotent; nobody makes that sandbox any more."""
        ...


@runtime_checkable
class Sweeping(Protocol):
    """A backend that keeps something for clients, which a client that is killed leaves there."""

    async def sweep(self) -> None:
        """Remove that of clients that have ended."""
        ...


async def reap(
    ledger: Ledger, *, load: Load | None = None, now: float | None = None, probe: bool = True
) -> list[Reaped]:
    """Delete every sandbox whose client, lifetime or processor time ended and close the entries of
    those that are gone. probe: ask the backends for those that should be alive, too, and forget
    what ended a week ago.

    now: seconds since the epoch, for tests; None goes by the clock since boot. One sandbox's
    failure does not stop the others. Cancellation stops between two sandboxes; what was begun is
    found by the next sweep.
    """
    due = _due(ledger.claims(), now)
    entries = ledger.live() if probe or due else ()
    done = []
    async with Backends(load) as backends:
        for entry in entries:
            reason = due.get(entry.record.id)
            if reason is None and not probe:
                continue
            outcome = await _settle(ledger, entry, backends, reason)
            done += [outcome] if outcome else []
        if probe or CLIENT_LOST in due.values():
            await _sweep(ledger, backends)
    if probe:
        ledger.forget((time.time() if now is None else now) - KEPT_SECONDS)
    return done


async def _sweep(ledger: Ledger, backends: Backends) -> None:
    """Remove what ended clients left that is no sandbox."""
    await asyncio.to_thread(owned.sweep, ledger.path.parent)
    for backend in backends.opened:
        if isinstance(backend, Sweeping):
            with contextlib.suppress(SandboxError):
                await backend.sweep()


def _due(claims: Iterable[Claim], now: float | None) -> dict[str, str]:
    """Why each sandbox is to end now, by id; owners are looked at once each."""
    alive: dict[Owner | None, bool] = {None: True}
    due = {}
    for claim in claims:
        if claim.owner not in alive:
            alive[claim.owner] = claim.owner is not None and claim.owner.alive()
        if claim.expired(now):
            due[claim.id] = LIFETIME
        elif not alive[claim.owner]:
            due[claim.id] = CLIENT_LOST
    return due


async def _settle(
    ledger: Ledger, entry: Entry, backends: Backends, reason: str | None
) -> Reaped | None:
    why = entry.reason or reason or entry.fate
    try:
        record = await named(backends, entry.record)
        async with backends.if_there(record) as instance:
            if instance is None and reason is None and not entry.record.native:
                return None
            if (
                instance is not None
                and reason is None
                and await instance.state() is not State.EXITED
            ):
                if not await is_spent(instance):
                    return None
                why = reason = CPU_TIME
                ledger.unfinished(entry.record.id, why)  # what is gone tells nobody why
            await delete(backends, record, instance)
        await clean(entry, backends.of(entry.record))
        ledger.end(entry.record.id, why)
    except BackendUnavailableError as error:
        return Reaped(entry.record.id, why, str(error)) if reason else None
    except (SandboxError, OSError) as error:
        return Reaped(entry.record.id, why, str(error))
    return Reaped(entry.record.id, why)


async def delete(backends: Backends, record: Record, instance: Instance | None) -> None:
    """Delete what there is of a sandbox: its instance, or where there is none what is being made of
    it. Idempotent."""
    if instance is not None:
        await instance.delete()
    elif isinstance(backend := backends.of(record), Discarding):
        await backend.discard(record.id)


async def named(backends: Backends, record: Record) -> Record:
    """With its native name, which is looked for when its creator died before it wrote it down."""
    if record.native:
        return record
    found = [one for one in await backends.of(record).found({}) if one.id == record.id]
    return replace(record, native=found[0].native) if found else record
