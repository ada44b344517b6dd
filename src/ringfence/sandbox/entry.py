"""The ways in: `open` for a sandbox to hold, `run` for one command."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from ringfence.backends.base import Backend
from ringfence.errors import InvalidSpecError, SandboxError
from ringfence.events import EventBus
from ringfence.ledger import Ledger
from ringfence.policy import Ceiling
from ringfence.sandbox.beginning import Beginning
from ringfence.sandbox.commands import GRACE_SECONDS, Args, OnOutputLimit, Sink
from ringfence.sandbox.loop import running
from ringfence.sandbox.opening import open_new
from ringfence.sandbox.sandbox import GRACEFUL_SECONDS, Sandbox
from ringfence.sandbox.stdin import Stdin
from ringfence.sandbox.steps import Where
from ringfence.spec import (
    ExecResult,
    Limits,
    Mount,
    Network,
    Repository,
    RunResult,
    SandboxSpec,
    Security,
    Usage,
)
from ringfence.spec.names import ProfileName


class Opening(Beginning[Sandbox]):
    """A sandbox about to be opened: `async with` it, or `await` it and end it yourself.

    Leaving the `async with` deletes the sandbox, or detaches it when it is a detached one. where:
    what was said besides the spec.
    """

    def __init__(self, spec: SandboxSpec | None, sandbox_id: str | None, where: Where) -> None:
        self._spec = spec
        self._id = sandbox_id
        self.where = where

    async def _begin(self) -> Sandbox:
        running("open")
        if self._id is not None:
            from ringfence.sandbox.reopening import open_existing

            return await open_existing(self._id, self.where)
        assert self._spec is not None  # noqa: S101 - one of the two is given
        return await open_new(self._spec, self.where)

    async def _end(self, begun: Sandbox, error: BaseException | None) -> None:
        await begun.aclose(grace=GRACEFUL_SECONDS if error is None else 0.0)


def open(  # noqa: A001 - the library's own word, used as ringfence.open
    spec: SandboxSpec | None = None,
    *,
    id: str | None = None,  # noqa: A002 - what the ledger and the CLI call it
    image: str | None = None,
    backend: str | Backend | None = None,
    profile: ProfileName | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | PurePath | None = None,
    user: str | int | None = None,
    repository: Repository | str | os.PathLike[str] | Mapping[str, Any] | None = None,
    mounts: Sequence[Mount | Mapping[str, Any]] | None = None,
    limits: Limits | Mapping[str, Any] | None = None,
    security: Security | Mapping[str, Any] | None = None,
    network: Network | Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    lifetime: float | str | None = None,
    idle_timeout: float | str | None = None,
    detached: bool | None = None,
    snapshot: str | None = None,
    lock: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    ceiling: Ceiling | None = None,
    ledger: Ledger | None = None,
    events: EventBus | None = None,
    audit: str | os.PathLike[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Opening:
    """A sandbox: `async with ringfence.open(image="python:3.12-slim") as sandbox`.

    spec: everything in one value; keywords change single fields of it (their meaning is
    SandboxSpec's). id: open a detached sandbox again, by its id or the beginning of it. backend: a
    name ("auto": docker when there is an image, else process), or an object to use. repository: a
    path is taken in mode copy. endpoint: of the backend, such as "unix:///run/docker.sock".
    ceiling: the most that may be granted. ledger: where the record is kept; this user's when left
    out. events: a bus of your own. audit: path of a log that every event is written to (see
    `ringfence audit verify`). progress: called a few times a second with the number
    of entries of the repository found so far.

    Raises InvalidSpecError at once. Opening raises what the steps do: UnsupportedError,
    PolicyDeniedError, ImageNotFoundError, BackendUnavailableError, ResourceExhaustedError,
    DeadlineExceededError; for an id NotFoundError and StateError. An error or cancellation leaves
    nothing behind.
    """
    fields: dict[str, Any] = {
        "image": image,
        "backend": backend if isinstance(backend, str) else None,
        "profile": profile,
        "env": env,
        "cwd": cwd,
        "user": user,
        "repository": repository,
        "mounts": mounts,
        "limits": limits,
        "security": security,
        "network": network,
        "labels": labels,
        "lifetime": lifetime,
        "idle_timeout": idle_timeout,
        "detached": detached,
        "snapshot": snapshot,
        "lock": lock,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    _check_kinds(spec, backend)
    where = Where(
        backend=None if isinstance(backend, str) else backend,
        endpoint=endpoint,
        ceiling=ceiling,
        ledger=ledger,
        bus=events,
        audit=audit,
        progress=progress,
    )
    if id is not None:
        _check_alone(spec, given)
        return Opening(None, id, where)
    return Opening(changed(spec, given), None, where)


def _check_kinds(spec: object, backend: object) -> None:
    """InvalidSpecError for what is no spec and no backend."""
    if not isinstance(spec, SandboxSpec | None):
        raise InvalidSpecError(
            f"spec: {spec!r} is no SandboxSpec: say id= for one that exists, image= for an image",
            op="open",
            context={"fields": ["spec"]},
        )
    if not isinstance(backend, str | None) and not hasattr(backend, "create"):
        raise InvalidSpecError(
            f"backend: {backend!r} is neither a name, such as 'docker', nor a backend",
            op="open",
            context={"fields": ["backend"]},
        )


def _check_alone(spec: SandboxSpec | None, given: Mapping[str, Any]) -> None:
    """InvalidSpecError unless an id comes without a description."""
    if spec is not None or given:
        raise InvalidSpecError(
            "id: a sandbox that exists cannot be described again: leave out "
            + ", ".join(sorted(given) or ["spec"]),
            op="open",
            context={"fields": ["id"]},
        )


def changed(spec: SandboxSpec | None, given: Mapping[str, Any]) -> SandboxSpec:
    """A spec with single fields changed. InvalidSpecError."""
    if spec is None:
        return SandboxSpec.parse(dict(given))
    if not given:
        return spec
    base = {name: getattr(spec, name) for name in spec.model_fields_set}
    return SandboxSpec.parse({**base, **given})


async def run(
    args: Args | None = None,
    *,
    spec: SandboxSpec | None = None,
    shell: str | None = None,
    stdin: Stdin | None = None,
    timeout: float | str | None = None,
    grace: float = GRACE_SECONDS,
    output: int | str | None = None,
    on_output_limit: OnOutputLimit = "truncate",
    merge_stderr: bool = False,
    cgroup: bool = False,
    on_stdout: Sink | None = None,
    on_stderr: Sink | None = None,
    image: str | None = None,
    backend: str | Backend | None = None,
    profile: ProfileName | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | PurePath | None = None,
    user: str | int | None = None,
    repository: Repository | str | os.PathLike[str] | Mapping[str, Any] | None = None,
    mounts: Sequence[Mount | Mapping[str, Any]] | None = None,
    limits: Limits | Mapping[str, Any] | None = None,
    security: Security | Mapping[str, Any] | None = None,
    network: Network | Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    lifetime: float | str | None = None,
    idle_timeout: float | str | None = None,
    snapshot: str | None = None,
    lock: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    ceiling: Ceiling | None = None,
    ledger: Ledger | None = None,
    events: EventBus | None = None,
    audit: str | os.PathLike[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> RunResult:
    """Open a sandbox, run one command in it and delete it: the result and all that is known.

    The command's fields are those of `Sandbox.exec`, the others those of `open`; what both raise
    is raised. The sandbox is deleted even where the spec says detached. `patch` is what the command
    changed in a repository in mode copy, else None.
    Cancellation leaves nothing behind.
    """
    opening = open(
        spec,
        image=image,
        backend=backend,
        profile=profile,
        env=env,
        cwd=cwd,
        user=user,
        repository=repository,
        mounts=mounts,
        limits=limits,
        security=security,
        network=network,
        labels=labels,
        lifetime=lifetime,
        idle_timeout=idle_timeout,
        snapshot=snapshot,
        lock=lock,
        detached=False if spec is not None and spec.detached else None,
        endpoint=endpoint,
        ceiling=ceiling,
        ledger=ledger,
        events=events,
        audit=audit,
        progress=progress,
    )
    async with opening as sandbox:
        result = await sandbox.exec(
            args,
            shell=shell,
            stdin=stdin,
            timeout=timeout,
            grace=grace,
            output=output,
            on_output_limit=on_output_limit,
            merge_stderr=merge_stderr,
            cgroup=cgroup,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
        )
        return await _collect(sandbox, result)


async def _collect(sandbox: Sandbox, result: ExecResult) -> RunResult:
    """All that is known of a sandbox after its one command."""
    try:
        usage = await sandbox.usage()
    except SandboxError:
        usage = Usage(source="none")
    repository = sandbox.spec.repository
    patch = None
    if repository is not None and repository.mode == "copy":
        patch = await sandbox.workspace.patch()
    return RunResult(result, usage, sandbox.receipt, sandbox.history, patch)
