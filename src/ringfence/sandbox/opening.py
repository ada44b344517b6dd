"""From a spec to a sandbox: an ordered list of steps, of which a failure leaves nothing behind.

spec -> backend and its features -> facts -> policy -> workspace -> record -> instance -> session
-> receipt -> Sandbox. What each step made is undone in reverse when a later one raises or the
opening is cancelled.
"""

import asyncio
import errno
import os
import platform
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

from ringfence.backends import registry
from ringfence.backends.base import Backend, Features, Filtered, Instance, Record
from ringfence.backends.finish import finish
from ringfence.backends.sized import with_size
from ringfence.errors import NotFoundError, ResourceExhaustedError, SandboxError, StateError
from ringfence.events import Attached, Created, CreateFailed, EventBus
from ringfence.guest.control import User
from ringfence.guest.session import Session
from ringfence.ledger import Ledger
from ringfence.policy import Ceiling, Facts, machine_ceiling, resolve
from ringfence.policy.profiles import is_gvisor
from ringfence.sandbox import binds, needs, networking
from ringfence.sandbox import receipt as receipts
from ringfence.sandbox.auditing import audited
from ringfence.sandbox.binds import Prepared
from ringfence.sandbox.context import Context
from ringfence.sandbox.life import LOST, Life
from ringfence.sandbox.records import Records, Remembering
from ringfence.sandbox.sandbox import Sandbox
from ringfence.sandbox.workspace import Workspace
from ringfence.spec import Receipt, SandboxSpec, State
from ringfence.workspace import Prepared as WorkspacePrepared

LEASE_SECONDS = 10.0
GREETING_SECONDS = 30.0
_ID_BYTES = 6
CREATE_FAILED = "create failed"


@dataclass(frozen=True, slots=True)
class Where:
    """Whose sandbox it is besides what its spec says. backend: an object to use instead of the
    spec's name; it is not closed. endpoint: of the backend. ledger: None for this user's.
    workspace: one that was made already; the sandbox's id is its directory's name."""

    backend: Backend | None = None
    endpoint: str | None = None
    ceiling: Ceiling | None = None
    ledger: Ledger | None = None
    bus: EventBus | None = None
    audit: str | os.PathLike[str] | None = None
    workspace: WorkspacePrepared | None = None


class Steps:
    """What was made so far. undo: what ends when a later step fails. rest: what outlives the
    instance, on failure as in the sandbox's own life (the backend's connections, the workspace)."""

    def __init__(self) -> None:
        self.undo = AsyncExitStack()
        self.rest = AsyncExitStack()
        self.kept: list[Callable[[], Awaitable[None]]] = []

    async def aclose(self) -> None:
        """Undo everything, newest first."""
        try:
            await self.undo.aclose()
        finally:
            await self.rest.aclose()

    def keep_after(self, close: Callable[[], Awaitable[None]]) -> None:
        """Let the sandbox close this at its end; a failure to open leaves it."""
        self.kept.append(close)

    def keep(self) -> AsyncExitStack:
        """Nothing is to be undone any more; the rest now belongs to the sandbox."""
        self.undo.pop_all()
        for close in self.kept:
            self.rest.push_async_callback(close)
        return self.rest


async def open_new(spec: SandboxSpec, where: Where) -> Sandbox:
    """A new sandbox. Cancellation, like an error, leaves nothing behind."""
    sandbox_id = secrets.token_hex(_ID_BYTES)
    if where.workspace is not None:
        sandbox_id = where.workspace.directory.name
    bus = where.bus or EventBus()
    steps = Steps()
    begin = time.monotonic()
    end_audit = _audit(where, bus, sandbox_id, spec)
    try:
        sandbox = await _open_new(spec, where, sandbox_id, bus, steps)
    except BaseException as raised:
        await finish(steps.aclose())
        error = _named(raised)
        if isinstance(error, SandboxError):
            error.sandbox_id = error.sandbox_id or sandbox_id
            bus.publish(_failure(error, sandbox_id, spec))
        end_audit()
        if error is raised:
            raise
        raise error from raised
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


def _named(error: BaseException) -> BaseException:
    """A full disk that a step met is ResourceExhaustedError; all else is what it is."""
    if isinstance(error, SandboxError) or not isinstance(error, OSError):
        return error
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return ResourceExhaustedError(
        f"open: {error.strerror} ({error.filename}): free space there or set RINGFENCE_STATE_DIR",
        op="open",
        context={"errno": error.errno},
    )


def _audit(
    where: Where, bus: EventBus, sandbox_id: str, spec: SandboxSpec | None = None
) -> Callable[[], None]:
    if where.audit is None:
        return lambda: None
    return audited(bus, where.audit, sandbox_id, spec)


def _failure(error: SandboxError, sandbox_id: str, spec: SandboxSpec) -> CreateFailed:
    return CreateFailed(
        sandbox_id=sandbox_id,
        backend=spec.backend,
        code=str(error.code),
        message=error.message,
    )


async def _open_new(
    spec: SandboxSpec, where: Where, sandbox_id: str, bus: EventBus, steps: Steps
) -> Sandbox:
    if spec.snapshot is not None:
        spec = await asyncio.to_thread(binds.with_repository, spec)
    request, backend = _choose(spec, where, steps)
    features = await backend.features()
    needs.check(request, features)
    facts = _with_owner(await backend.facts(request), request)
    ceiling = machine_ceiling() if where.ceiling is None else where.ceiling
    granted = _with_variables(resolve(request, facts, ceiling=ceiling), facts)
    needs.check_granted(granted, features)
    authority = networking.authority_for(granted.network, sandbox_id)
    granted = binds.with_git(with_size(granted))
    records = await Records.of(backend, where.ledger)
    steps.undo.push_async_callback(records.end, sandbox_id, CREATE_FAILED)
    await records.add(_reserved(granted, sandbox_id, backend), binds.undo_of(granted, sandbox_id))
    prepared = await binds.prepare(
        granted, sandbox_id, facts, given=where.workspace, volumes=backend.name == "docker"
    )
    steps.rest.push_async_callback(prepared.aclose)
    if authority is not None:
        trusted = await asyncio.to_thread(networking.trusted, authority, steps.rest)
        prepared = replace(prepared, binds=(*prepared.binds, trusted))
    instance = await _create(backend, granted, sandbox_id, facts, prepared)
    steps.undo.push_async_callback(instance.delete)
    await records.created(instance.record)
    session = await _start(instance, granted)
    steps.undo.push_async_callback(session.close)
    user = await session.user(granted.user or "")
    if facts.local and features.mounts:
        inodes = not is_gvisor(granted.security.runtime)
        await binds.verify(prepared, session, user, inodes=inodes)
    receipt = await _receipt(granted, facts, features, instance, session=session, user=user)
    network = await networking.connect(
        session, granted, sandbox_id, bus, undo=steps.rest, authority=authority
    )
    life = Life(instance, session, records, bus, rest=steps.rest, idle_timeout=granted.idle_timeout)
    steps.undo.callback(life.stop_watching)
    if granted.limits.cpu_time is not None:
        cores = granted.limits.cpus or facts.cpus
        life.watch(life.watch_cpu_time(granted.limits.cpu_time, cores))
    context = Context(life, granted, features, user)
    sandbox = _joined(context, receipt, network, prepared.workspace, where)
    steps.keep()
    return sandbox


async def open_existing(sandbox_id: str, where: Where) -> Sandbox:
    """A session with a sandbox that exists. NotFoundError, StateError (it is attached elsewhere,
    or it is no detached one). Cancellation leaves it as it was."""
    bus = where.bus or EventBus()
    steps = Steps()
    end_audit = _audit(where, bus, sandbox_id)
    try:
        sandbox = await _open_existing(sandbox_id, where, bus, steps)
    except BaseException as error:
        await finish(steps.aclose())
        if isinstance(error, SandboxError):
            error.sandbox_id = error.sandbox_id or sandbox_id
        end_audit()
        raise
    bus.publish(Attached(sandbox_id=sandbox.id))
    return sandbox


async def _open_existing(sandbox_id: str, where: Where, bus: EventBus, steps: Steps) -> Sandbox:
    record, backend, records = await _known(sandbox_id, where, steps)
    if not record.spec.detached:
        raise StateError(
            f"open: sandbox {record.id} is attached to the process that opened it: only detached"
            " ones can be opened again",
            op="open",
            sandbox_id=record.id,
        )
    try:
        instance = await backend.attach(record)
    except NotFoundError:
        await records.end(record.id, LOST)
        raise
    if await instance.state() is State.PAUSED:
        raise StateError(
            f"open: sandbox {record.id} is paused: `ringfence resume` it first",
            op="open",
            sandbox_id=record.id,
        )
    session = await _start(instance, record.spec, again=True)
    steps.undo.push_async_callback(session.close)
    features = await backend.features()
    user = await session.user(record.spec.user or "")
    network = await networking.connect(session, record.spec, record.id, bus, undo=steps.rest)
    held = await binds.held(record.id)
    if held is not None:
        steps.keep_after(held.aclose)
    life = Life(
        instance, session, records, bus, rest=steps.rest, idle_timeout=record.spec.idle_timeout
    )
    steps.undo.callback(life.stop_watching)
    life.ends = record.ends
    receipt = await _receipt_again(record, features, life, user)
    context = Context(life, record.spec, features, user)
    sandbox = _joined(context, receipt, network, held, where)
    steps.keep()
    return sandbox


def _joined(
    context: Context,
    receipt: Receipt,
    network: networking.Networking,
    workspace: Workspace | None,
    where: Where,
) -> Sandbox:
    def again(prepared: WorkspacePrepared) -> Coroutine[Any, Any, Sandbox]:
        return open_new(context.spec, replace(where, workspace=prepared))

    if workspace is not None:
        workspace.join(context, again)
    return Sandbox(context, receipt, network, workspace)


async def _known(sandbox_id: str, where: Where, steps: Steps) -> tuple[Record, Backend, Records]:
    backend = where.backend
    if backend is not None and isinstance(backend, Remembering):
        return backend.record(sandbox_id), backend, Records(None)
    ledger = where.ledger
    if ledger is None:
        ledger = await asyncio.to_thread(Ledger.default)
    entry = await asyncio.to_thread(ledger.get, sandbox_id)
    if not entry.live:
        raise NotFoundError(
            f"open: sandbox {entry.record.id} has ended: {entry.reason}",
            op="open",
            sandbox_id=entry.record.id,
        )
    if backend is None:
        backend = registry.load(entry.record.backend, entry.record.endpoint or None)
        steps.rest.push_async_callback(backend.aclose)
    return entry.record, backend, Records(ledger)


def _choose(spec: SandboxSpec, where: Where, steps: Steps) -> tuple[SandboxSpec, Backend]:
    """The request with its backend's name, and that backend; docker when an image is asked for."""
    backend = where.backend
    if backend is None:
        name = spec.backend
        if name == "auto":
            name = "docker" if spec.image is not None else "process"
        backend = registry.load(name, where.endpoint)
        steps.rest.push_async_callback(backend.aclose)
    return spec.model_copy(update={"backend": backend.name}), backend


def _with_owner(facts: Facts, request: SandboxSpec) -> Facts:
    """The facts with the repository's owner, where the backend did not look."""
    repository = request.repository
    if repository is None or facts.repository_uid is not None or not facts.local:
        return facts
    try:
        status = os.stat(repository.path)  # noqa: PTH116 - a spec's path is text
    except OSError:
        return facts
    return replace(facts, repository_uid=status.st_uid, repository_gid=status.st_gid)


def _with_variables(granted: SandboxSpec, facts: Facts) -> SandboxSpec:
    """The spec's variables on top of the network's and the image's."""
    image = {} if facts.image is None else facts.image.env
    usable = {
        name: value
        for name, value in image.items()
        if name.isidentifier() and name.isascii() and "\0" not in value
    }
    return granted.model_copy(
        update={"env": {**usable, **networking.variables(granted.network), **granted.env}}
    )


def _reserved(granted: SandboxSpec, sandbox_id: str, backend: Backend) -> Record:
    now = time.time()
    return Record(
        id=sandbox_id,
        backend=backend.name,
        endpoint=getattr(backend, "endpoint", None) or "",
        native="",
        transport="",
        spec=granted,
        created=now,
        ends=None if granted.lifetime is None else now + granted.lifetime,
    )


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
        await finish(_settled(creating))
        if not creating.cancelled() and creating.exception() is None:
            await finish(creating.result().delete())
        raise


async def _settled(task: "asyncio.Future[Instance]") -> None:
    await asyncio.wait([task])


async def _start(instance: Instance, granted: SandboxSpec, *, again: bool = False) -> Session:
    record = instance.record
    return await Session.start(
        instance.connect,
        marker=record.marker,
        next_marker=record.marker,
        lease=LEASE_SECONDS,
        lifetime=None if again else granted.lifetime,
        detached=granted.detached,
        deadline=GREETING_SECONDS,
    )


async def _receipt(
    granted: SandboxSpec,
    facts: Facts,
    features: Features,
    instance: Instance,
    *,
    session: Session,
    user: User,
) -> Receipt:
    """What is really enforced. PolicyDeniedError that names every gap that is not allowed."""
    if not features.receipt:
        return Receipt(())
    if isinstance(instance, Filtered) and instance.filter:
        await session.filter(instance.filter)
    arch = facts.image.architecture if facts.image is not None else platform.machine()
    return receipts.check(
        await receipts.read(granted, features, instance, session, user, arch=arch), granted
    )


async def _receipt_again(record: Record, features: Features, life: Life, user: User) -> Receipt:
    """As far as it can be read: the sandbox may be paused, full, or changed since its start."""
    if not features.receipt:
        return Receipt(())
    try:
        return await receipts.read(
            record.spec, features, life.instance, life.session, user, arch=platform.machine()
        )
    except SandboxError:
        return Receipt(())
