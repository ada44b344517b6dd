"""A session with a sandbox that exists already, made by whatever process."""

import asyncio
import os
import platform
from dataclasses import replace

from ringfence.backends import registry
from ringfence.backends.base import Backend, Features, Instance, Record, release
from ringfence.backends.finish import finish
from ringfence.errors import (
    DeadlineExceededError,
    NotFoundError,
    PolicyDeniedError,
    SandboxError,
    StateError,
)
from ringfence.events import Attached, EventBus
from ringfence.guest.control import User
from ringfence.guest.session import Session
from ringfence.ledger import Entry, Ledger
from ringfence.ledger.cleaning import clean
from ringfence.ledger.reasons import CPU_TIME
from ringfence.ledger.spent import is_spent
from ringfence.policy.users import are_reserved, is_root
from ringfence.sandbox import networking
from ringfence.sandbox import receipt as receipts
from ringfence.sandbox.auditing import audit_of
from ringfence.sandbox.context import Context
from ringfence.sandbox.granting import ceiling_of
from ringfence.sandbox.greeting import greet
from ringfence.sandbox.life import Life
from ringfence.sandbox.opening import joined, named
from ringfence.sandbox.records import Records, Remembering
from ringfence.sandbox.sandbox import Sandbox, context_of
from ringfence.sandbox.steps import Steps, Where
from ringfence.sandbox.watching import watch_cpu_time
from ringfence.spec import Receipt, SandboxSpec, State


async def open_existing(sandbox_id: str, where: Where) -> Sandbox:
    """A session with a sandbox that exists. NotFoundError, StateError (it is no detached one),
    DeadlineExceededError (somebody else holds it), PolicyDeniedError (its user is another by now),
    ResourceExhaustedError. Cancellation, like an error, leaves it as it was."""
    bus = where.bus or EventBus()
    steps = Steps()
    audit = audit_of(where.audit, bus, sandbox_id)
    try:
        sandbox = await _open_existing(sandbox_id, where, bus, steps)
    except BaseException as raised:
        error = named(raised)
        try:
            await finish(steps.aclose())
        finally:
            audit.end()
        if isinstance(error, SandboxError):
            error.sandbox_id = error.sandbox_id or sandbox_id
        if error is raised:
            raise
        raise error from raised
    audit.hide(context_of(sandbox).spec)
    bus.publish(Attached(sandbox_id=sandbox.id))
    return sandbox


async def _open_existing(sandbox_id: str, where: Where, bus: EventBus, steps: Steps) -> Sandbox:
    entry, backend, records = await _known(sandbox_id, where, steps)
    record = entry.record
    _check_openable(entry)
    instance = await _attached(entry, backend, records, steps)
    session = await _greeted(instance, record)
    steps.undo.push_async_callback(session.close)
    features = await backend.features()
    user = await session.user(record.spec.user or "")
    if features.users:
        _check_user(user, record.spec, session.hello.reserved_uid)
    network = await networking.connect(session, record.spec, record.id, bus, undo=steps.rest)
    held = None
    if record.spec.repository is not None:
        from ringfence.sandbox import repository

        held = await repository.held(record.id)
    if held is not None:
        steps.keep_after(held.aclose)
    life = Life(
        instance, session, records, bus, rest=steps.rest, idle_timeout=record.spec.idle_timeout
    )
    steps.undo.callback(life.stop_watching)
    life.ends = record.ends
    if record.spec.limits.cpu_time is not None:
        life.watch(watch_cpu_time(life, record.spec.limits.cpu_time, os.cpu_count() or 1))
    receipt = await _receipt(record, features, life, user)
    ceiling = ceiling_of(where)
    context = Context(life, record.spec, features, user, backend=backend, ceiling=ceiling)
    there = replace(where, endpoint=where.endpoint or record.endpoint or None)
    sandbox = joined(context, receipt, network, held, there)
    steps.keep()
    return sandbox


def _check_openable(entry: Entry) -> None:
    record = entry.record
    if entry.problem is not None:
        from importlib.metadata import version

        raise StateError(
            f"open: sandbox {record.id} was made by another version of Ringfence than this one"
            f" ({version('ringfence')}): {entry.problem}; open it with that version, or"
            f" `ringfence rm {record.id}` it",
            op="open",
            sandbox_id=record.id,
        )
    if not record.spec.detached:
        raise StateError(
            f"open: sandbox {record.id} is attached to the process that opened it: only detached"
            " ones can be opened again",
            op="open",
            sandbox_id=record.id,
        )


def _check_user(user: User, spec: SandboxSpec, reserved: int) -> None:
    """PolicyDeniedError for a default user that the receipt of the start would have refused: what
    says in a sandbox who a name is may have been written there since."""
    asked, allowed = spec.user or "", spec.security.allow_degraded
    why = None
    if are_reserved(user.ids, reserved):
        why = "reserved for the guest, or has a group that is"
    elif not is_root(asked) and user.uid == 0 and "user" not in allowed:
        why = "root"
    elif not is_root(asked) and 0 in user.groups and "groups" not in allowed:
        why = "in the group of root"
    if why is not None:
        raise PolicyDeniedError(
            f"open: the sandbox's user {asked!r} is {why} by now: what ran there changed its"
            " /etc/passwd or /etc/group, and nobody can go on with it: `ringfence rm` it",
            op="open",
            context={"fields": ["user"]},
        )


async def _attached(entry: Entry, backend: Backend, records: Records, steps: Steps) -> Instance:
    """Its instance, which runs. NotFoundError when it has ended, StateError when it is paused."""
    record = entry.record
    try:
        instance = await backend.attach(record)
    except NotFoundError:
        await records.gone(entry)
        raise
    steps.undo.callback(release, instance)
    if await is_spent(instance):
        await finish(_end(instance, entry, backend, records))
        raise _ended(record, CPU_TIME)
    if await instance.state() is State.PAUSED:
        raise StateError(
            f"open: sandbox {record.id} is paused: `ringfence resume` it first",
            op="open",
            sandbox_id=record.id,
        )
    return instance


async def _greeted(instance: Instance, record: Record) -> Session:
    try:
        return await greet(instance, record.spec, again=True)
    except DeadlineExceededError:
        raise DeadlineExceededError(
            f"open: the guest of sandbox {record.id} does not come: another client may hold it, and"
            " one at a time can: try again when that one has left",
            op="open",
            sandbox_id=record.id,
        ) from None


async def _end(instance: Instance, entry: Entry, backend: Backend, records: Records) -> None:
    """What its guest, which has killed all commands, waits for."""
    await records.unfinished(instance.record.id, CPU_TIME)
    await instance.delete()
    await clean(entry, backend)
    await records.end(instance.record.id, CPU_TIME)


def _ended(record: Record, reason: str | None) -> NotFoundError:
    return NotFoundError(
        f"open: sandbox {record.id} has ended: {reason}", op="open", sandbox_id=record.id
    )


async def _known(sandbox_id: str, where: Where, steps: Steps) -> tuple[Entry, Backend, Records]:
    backend = where.backend
    if backend is not None and isinstance(backend, Remembering):
        return Entry(backend.record(sandbox_id)), backend, Records(None)
    ledger = where.ledger
    if ledger is None:
        ledger = await asyncio.to_thread(Ledger.default)
    entry = await asyncio.to_thread(ledger.get, sandbox_id)
    if not entry.live:
        raise _ended(entry.record, entry.reason)
    if backend is None:
        backend = registry.load(entry.record.backend, entry.record.endpoint or None)
        steps.rest.push_async_callback(backend.aclose)
    return entry, backend, Records(ledger)


async def _receipt(record: Record, features: Features, life: Life, user: User) -> Receipt:
    """As far as it can be read: the sandbox may be paused, full, or changed since its start."""
    if not features.receipt:
        return Receipt(())
    try:
        return await receipts.read(
            record.spec, features, life.instance, life.session, user, arch=platform.machine()
        )
    except SandboxError:
        return Receipt(())
