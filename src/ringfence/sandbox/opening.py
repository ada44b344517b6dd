"""From a spec to a sandbox: an ordered list of steps, of which a failure leaves nothing behind.

spec -> backend and its features -> facts -> policy -> workspace -> record -> instance -> session
-> receipt -> Sandbox. What each step made is undone in reverse when a later one raises or the
opening is cancelled.
"""

import asyncio
import errno
import platform
import time
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ringfence.backends import exhausted
from ringfence.backends.base import Backend, Features, Instance, Record
from ringfence.backends.finish import finish
from ringfence.errors import ResourceExhaustedError, SandboxError
from ringfence.events import Created, CreateFailed, EventBus
from ringfence.guest.control import User
from ringfence.guest.request import Exit, NotStarted
from ringfence.guest.session import Session
from ringfence.policy import Facts
from ringfence.policy.profiles import is_gvisor
from ringfence.sandbox import binds, granting, needs, networking
from ringfence.sandbox import receipt as receipts
from ringfence.sandbox.auditing import audit_of
from ringfence.sandbox.binds import Prepared
from ringfence.sandbox.context import Context
from ringfence.sandbox.greeting import FirstAsked, greet
from ringfence.sandbox.life import Life
from ringfence.sandbox.records import Records
from ringfence.sandbox.sandbox import Sandbox, context_of
from ringfence.sandbox.steps import Steps, Where, new_id
from ringfence.sandbox.watching import have_guest_watch, watch_limits
from ringfence.spec import Receipt, SandboxSpec

if TYPE_CHECKING:  # loaded with the first repository
    from ringfence.digest import Descriptor
    from ringfence.network.authority import Authority
    from ringfence.sandbox.workspace import Workspace
    from ringfence.workspace import Prepared as WorkspacePrepared


async def open_new(spec: SandboxSpec, where: Where) -> Sandbox:
    """A new sandbox. Cancellation, like an error, leaves nothing behind."""
    sandbox_id = new_id()
    if where.workspace is not None:
        sandbox_id = where.workspace.directory.name
    bus = where.bus or EventBus()
    steps = Steps()
    begin = time.monotonic()
    audit = audit_of(where.audit, bus, sandbox_id, spec)
    try:
        sandbox = await _open_new(spec, where, sandbox_id, bus, steps)
    except BaseException as raised:
        error = named(raised)
        try:
            await _undo(steps, error)
            if isinstance(error, SandboxError):
                error.sandbox_id = error.sandbox_id or sandbox_id
                bus.publish(_failure(error, sandbox_id, spec))
        finally:
            audit.end()
        if error is raised:
            raise
        raise error from raised
    context_of(sandbox).hide = audit.hide
    info = sandbox.info
    bus.publish(
        Created(
            sandbox_id=sandbox_id,
            backend=info.backend,
            image=info.image,
            transport=info.transport or "",
            seconds=time.monotonic() - begin,
        )
    )
    return sandbox


async def _undo(steps: Steps, error: BaseException) -> None:
    """Undo what was made before `error`, which stays the one that is told. What cannot be undone
    now is on record, and whoever reaps goes on with it."""
    try:
        await finish(steps.aclose())
    except (SandboxError, OSError, RuntimeError) as more:
        if isinstance(more, RuntimeError) and exhausted.told(more) is None:
            raise
        error.add_note(f"something of it could not be removed, `ringfence reap` does: {more}")


def named(error: BaseException) -> BaseException:
    """A full disk or too few descriptors, processes or memory, which a step met, are
    ResourceExhaustedError; all else is what it is."""
    what = exhausted.told(error)
    if what is None:
        return error
    number = error.errno if isinstance(error, OSError) else errno.EAGAIN
    return ResourceExhaustedError(f"open: {what}", op="open", context={"errno": number})


def _failure(error: SandboxError, sandbox_id: str, spec: SandboxSpec) -> CreateFailed:
    return CreateFailed(
        sandbox_id=sandbox_id,
        backend=spec.backend,
        code=str(error.code),
        message=error.message,
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is known of a sandbox before anything of it is made. reserved: its record until then.
    ends_alone: whether nothing of it outlives this process, so that its record can wait."""

    granted: SandboxSpec
    backend: Backend
    features: Features
    facts: Facts
    authority: "Authority | None"
    records: Records
    reserved: Record
    ends_alone: bool


async def _open_new(
    spec: SandboxSpec, where: Where, sandbox_id: str, bus: EventBus, steps: Steps
) -> Sandbox:
    plan = await _plan(spec, where, sandbox_id, steps)
    granted, features, facts, records = plan.granted, plan.features, plan.facts, plan.records
    if not plan.ends_alone:
        await records.add(plan.reserved, binds.undo_of(granted, sandbox_id))
    prepared = await _prepare(plan, where, sandbox_id, steps)
    instance = await _create(plan.backend, granted, sandbox_id, facts, prepared)
    steps.undo.push_async_callback(instance.delete)
    asked = FirstAsked(granted, instance, features)
    session = await greet(instance, granted, first=asked.ask)
    steps.undo.push_async_callback(session.close)
    user = await asked.user()
    note = records.add if plan.ends_alone else records.created
    noted = steps.beside(note(instance.record))
    if facts.local and features.mounts:
        inodes = not is_gvisor(granted.security.runtime)
        await binds.verify(prepared, session, user, inodes=inodes)
    receipt = await read_receipt(
        granted, facts, features, instance, session=session, user=user, ahead=await asked.view(user)
    )
    network = await networking.connect(
        session, granted, sandbox_id, bus, undo=steps.rest, authority=plan.authority
    )
    await noted
    await have_guest_watch(instance, session, granted, facts)
    life = Life(instance, session, records, bus, rest=steps.rest, idle_timeout=granted.idle_timeout)
    steps.undo.callback(life.stop_watching)
    watch_limits(life, granted, facts, features)
    ceiling = granting.ceiling_of(where)
    context = Context(life, granted, features, user, backend=plan.backend, ceiling=ceiling)
    sandbox = joined(context, receipt, network, prepared.workspace, where)
    steps.keep()
    return sandbox


async def _plan(spec: SandboxSpec, where: Where, sandbox_id: str, steps: Steps) -> _Plan:
    """What is granted, and by whom; nothing is made but what `steps` undoes."""
    root: Descriptor | None = None
    if spec.snapshot is not None:
        from ringfence.sandbox import snapshots

        spec, root = await asyncio.to_thread(snapshots.started, spec)
    request, backend = granting.choose(spec, where, steps)
    if root is not None:
        await snapshots.load(backend, root)
    features = await backend.features()
    needs.check(request, features)
    facts = granting.with_owner(await backend.facts(request), request)
    granted = granting.grant(request, facts, features, where)
    authority = networking.authority_for(granted.network, sandbox_id)
    records = Records.of(backend, where.ledger)
    reserved = granting.reserved(granted, sandbox_id, backend)
    steps.last = partial(_close, records, reserved)
    ends_alone = features.lifeline and not granted.detached and granted.repository is None
    return _Plan(
        granted, backend, features, facts, authority, records, reserved, ends_alone=ends_alone
    )


async def _prepare(plan: _Plan, where: Where, sandbox_id: str, steps: Steps) -> Prepared:
    """All of the host that appears inside, checked, or made."""
    prepared = await binds.prepare(
        plan.granted,
        sandbox_id,
        plan.facts,
        given=where.workspace,
        volumes=plan.backend.name == "docker",
        progress=where.progress,
    )
    steps.rest.push_async_callback(prepared.aclose)
    if plan.authority is None:
        return prepared
    trusted = await asyncio.to_thread(networking.trusted, plan.authority, steps.rest)
    return replace(prepared, binds=(*prepared.binds, trusted))


async def _close(records: Records, reserved: Record, whole: bool) -> None:
    """Close the record of one that was not made, or leave it to whoever reaps where something of it
    could not be removed."""
    left = not whole or binds.is_left(reserved.spec, reserved.id)
    await records.failed(reserved, left=left)


def joined(
    context: Context,
    receipt: Receipt,
    network: networking.Networking,
    workspace: "Workspace | None",
    where: Where,
) -> Sandbox:
    """The sandbox of a session, which can be opened again, for another one like it."""

    def again(
        prepared: "WorkspacePrepared | None", image: str | None = None
    ) -> Coroutine[Any, Any, Sandbox]:
        other = {} if image is None else {"image": image, "snapshot": None}
        spec = needs.like(context.spec, context.features).model_copy(update=other)
        return open_new(spec, replace(where, workspace=prepared))

    if workspace is not None:
        workspace.join(context, again)
    return Sandbox(context, receipt, network, workspace, again)


async def _create(
    backend: Backend, granted: SandboxSpec, sandbox_id: str, facts: Facts, prepared: Prepared
) -> Instance:
    """Create; when cancelled meanwhile, what may just have been made is deleted."""
    creating = asyncio.ensure_future(
        backend.create(granted, sandbox_id, facts, binds=prepared.binds)
    )
    try:
        return await creating
    except asyncio.CancelledError:
        creating.cancel()
        await finish(_unmade(creating))
        raise


async def _unmade(creating: "asyncio.Future[Instance]") -> None:
    await asyncio.wait([creating])
    if not creating.cancelled() and creating.exception() is None:
        await creating.result().delete()


async def read_receipt(
    granted: SandboxSpec,
    facts: Facts,
    features: Features,
    instance: Instance,
    *,
    session: Session,
    user: User,
    ahead: "asyncio.Future[Exit | NotStarted] | None" = None,
) -> Receipt:
    """What is really enforced. PolicyDeniedError that names every gap that is not allowed."""
    if not features.receipt:
        return Receipt(())
    arch = facts.image.architecture if facts.image is not None else platform.machine()
    return receipts.check(
        await receipts.read(granted, features, instance, session, user, arch=arch, ahead=ahead),
        granted,
    )
