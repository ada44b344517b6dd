"""A repository for a sandbox that waited for its task: bound in it before its first command.

The steps are those of an opening, from its policy to its receipt, without the instance, which is
there: spec -> policy -> record -> workspace -> mounts -> receipt.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ringfence.backends.base import Enterable, Features
from ringfence.errors import InvalidSpecError, SandboxError, UnsupportedError
from ringfence.events import RepositoryBound, RepositoryRefused
from ringfence.policy import Facts
from ringfence.policy.profiles import is_gvisor
from ringfence.sandbox import binds, granting, needs
from ringfence.sandbox.auditing import without_login
from ringfence.sandbox.context import Context
from ringfence.sandbox.entry import Opening, changed
from ringfence.sandbox.opening import named, read_receipt
from ringfence.sandbox.sandbox import Sandbox, context_of, take
from ringfence.sandbox.steps import Steps, Where
from ringfence.spec import Repository, SandboxSpec

_OP = "pool.acquire"


class Maker:
    """Makes one member each time it is called. where: whose they are, besides what `spec` says."""

    def __init__(self, spec: SandboxSpec, opening: Opening) -> None:
        self._spec = spec
        self._opening = opening
        self.where = opening.where
        self._able: tuple[str, Features] | None = None

    async def __call__(self) -> Sandbox:
        """A new member."""
        return await self._opening

    async def asked(self, repository: object) -> SandboxSpec:
        """The spec with a repository that its members can get; see `Pool.acquire`."""
        if self._able is None:
            self._able = await features_of(self._spec, self.where)
        return asked_for(self._spec, repository, *self._able)


async def features_of(spec: SandboxSpec, where: Where) -> tuple[str, Features]:
    """The backend of a spec, by name, and what it can do. BackendUnavailableError."""
    steps = Steps()
    try:
        _, backend = granting.choose(spec, where, steps)
        return backend.name, await backend.features()
    finally:
        await steps.aclose()


def asked_for(
    spec: SandboxSpec, repository: object, backend: str, features: Features
) -> SandboxSpec:
    """The spec of a pool with a repository, which its members on that backend can get.

    InvalidSpecError, also when it has one already; UnsupportedError where none can be bound later.
    """
    if spec.repository is not None or spec.snapshot is not None:
        has = "snapshot" if spec.repository is None else "repository"
        raise InvalidSpecError(
            f"pool: its spec has a {has} already: acquire without one, or make a pool without it",
            op=_OP,
            context={"fields": ["repository", has]},
        )
    asked = changed(spec, {"repository": repository}).model_copy(update={"backend": backend})
    needs.check(asked, features)
    if not features.late_binds or is_gvisor(spec.security.runtime):
        raise UnsupportedError(
            "pool: a running sandbox can get a repository only from root on the daemon's machine,"
            " on the process backend or docker with runc: put the repository into the pool's spec",
            op=_OP,
            context={"fields": ["repository"], "backend": backend},
        )
    _check_below(asked)
    _check_rates(asked)
    return asked


def _check_below(asked: SandboxSpec) -> None:
    """What is mounted in members already, the repository would cover."""
    place = _repository(asked).mount_point + "/"
    mounted = [*(mount.destination for mount in asked.mounts), *asked.security.tmpfs]
    covered = [path for path in mounted if path.startswith(place)]
    if covered:
        raise InvalidSpecError(
            f"repository: it would cover {', '.join(covered)}, which members of the pool have:"
            " choose another mount_point, or put the repository into the pool's spec",
            op=_OP,
            context={"fields": ["repository.mount_point"]},
        )


def _check_rates(spec: SandboxSpec) -> None:
    """They hold for the disks that a sandbox was made with; a repository may be on another."""
    rated = [name for name in ("read_rate", "write_rate") if getattr(spec.limits, name) is not None]
    if rated:
        fields = [f"limits.{name}" for name in rated]
        raise UnsupportedError(
            f"pool: {', '.join(fields)} would not hold for a repository that comes later: put it"
            " into the pool's spec",
            op=_OP,
            context={"fields": fields},
        )


def _repository(spec: SandboxSpec) -> Repository:
    assert spec.repository is not None  # noqa: S101 - asked for by `asked_for` alone
    return spec.repository


async def give(sandbox: Sandbox, asked: SandboxSpec, where: Where) -> None:
    """Bind the repository of `asked` in a sandbox in which nothing has run: from then on it is as
    if it had been opened with it.

    What opening one raises. An error or a cancellation leaves a sandbox that is to be deleted,
    which removes all that was made.
    """
    context = context_of(sandbox)
    context.hide(asked)
    try:
        with context.operation(_OP):
            await _give(sandbox, asked, where)
    except (SandboxError, OSError, RuntimeError) as raised:
        error = named(raised)
        if isinstance(error, SandboxError):
            error.sandbox_id = error.sandbox_id or context.id
            context.bus.publish(_refused(error, context.id, _repository(asked)))
        if error is raised:
            raise
        raise error from raised


def _refused(error: SandboxError, sandbox_id: str, repository: Repository) -> RepositoryRefused:
    return RepositoryRefused(
        sandbox_id=sandbox_id,
        path=without_login(repository.path),
        mode=repository.mode,
        code=str(error.code),
    )


async def _give(sandbox: Sandbox, asked: SandboxSpec, where: Where) -> None:
    begin = time.monotonic()
    context = context_of(sandbox)
    life, instance, session = context.life, context.instance, context.session
    granted, facts = await _granted(context, asked, where)
    await life.note(granted, binds.undo_of(granted, life.id))
    if life.ended:
        raise life.lost(_OP)
    preparing = asyncio.ensure_future(_prepared(context, granted, facts, where.progress))
    life.own(partial(_undo, preparing, life.id))
    prepared = await preparing
    if life.ended:
        raise life.lost(_OP)
    workspace = prepared.workspace
    assert workspace is not None  # noqa: S101 - it has a repository
    assert isinstance(instance, Enterable)  # noqa: S101 - its backend's Features say so
    await instance.bind(prepared.binds, session.ping)
    user = context.default_user
    await binds.verify(prepared, session, user, inodes=True)
    receipt = await read_receipt(
        granted, facts, context.features, instance, session=session, user=user
    )
    instance.record = replace(instance.record, spec=granted)
    context.take(granted)
    take(sandbox, receipt, workspace)
    repository = _repository(granted)
    context.bus.publish(
        RepositoryBound(
            sandbox_id=life.id,
            path=without_login(repository.path),
            mode=repository.mode,
            mount_point=repository.mount_point,
            strategy=workspace.strategy,
            seconds=time.monotonic() - begin,
        )
    )


async def _undo(preparing: "asyncio.Future[binds.Prepared]", sandbox_id: str) -> None:
    """Remove what is prepared, or just being prepared: until then the record says that it is. What
    failed has removed it, unless it could not for the same reason, such as no descriptor left."""
    await asyncio.wait([preparing])
    if not preparing.cancelled() and preparing.exception() is None:
        await preparing.result().aclose()
        return
    from ringfence import workspace

    await asyncio.to_thread(workspace.clean, binds.directory_of(sandbox_id))


async def _granted(context: Context, asked: SandboxSpec, where: Where) -> tuple[SandboxSpec, Facts]:
    """What policy makes of it, for the user that the sandbox has; all else stays as it is."""
    has = context.spec
    _check_rates(has)
    request = asked.model_copy(update={"image": has.image, "user": has.user})
    facts = granting.with_owner(await context.facts(request), request)
    granted = granting.grant(request, facts, context.features, where)
    new = {name: getattr(granted, name) for name in ("repository", "cwd", "env")}
    return has.model_copy(update=new), facts


async def _prepared(
    context: Context, granted: SandboxSpec, facts: Facts, progress: Callable[[int], None] | None
) -> binds.Prepared:
    """The workspace alone, of the files of the user by number: its name is only known inside."""
    user = context.default_user
    alone = granted.model_copy(update={"mounts": (), "user": f"{user.uid}:{user.gid}"})
    return await binds.prepare(alone, context.id, facts, progress=progress)
