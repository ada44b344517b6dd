"""What of the host appears inside a sandbox: the mounts and the repository, as binds."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringfence.backends.base import Bind
from ringfence.backends.sources import check_source
from ringfence.backends.state import state_directory
from ringfence.errors import PathDeniedError, PolicyDeniedError
from ringfence.guest.control import User
from ringfence.guest.protocol import Cred
from ringfence.guest.session import Session
from ringfence.policy.facts import Facts
from ringfence.spec import SandboxSpec

if TYPE_CHECKING:  # loaded with the first repository
    from ringfence.sandbox.workspace import Workspace
    from ringfence.workspace import Prepared as WorkspacePrepared

WORKSPACES = "workspaces"
_LOOKS = 20


async def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class Prepared:
    """binds: for the backend. workspace: what `sandbox.workspace` is, None without a repository.
    checked: device and inode, by destination, of what the sources were when they were checked.
    aclose: undoes all that was made; idempotent."""

    binds: tuple[Bind, ...] = ()
    workspace: "Workspace | None" = None
    checked: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    aclose: Callable[[], Awaitable[None]] = _nothing


def directory_of(sandbox_id: str) -> Path:
    """The directory of a sandbox's workspace."""
    return state_directory() / WORKSPACES / sandbox_id


def is_left(spec: SandboxSpec, sandbox_id: str) -> bool:
    """Whether something of a sandbox's workspace is still on this host."""
    if spec.repository is None:
        return False
    from ringfence import workspace

    return workspace.is_left(directory_of(sandbox_id))


def undo_of(granted: SandboxSpec, sandbox_id: str) -> Mapping[str, Any] | None:
    """What must be undone on this host when the holder is gone, as the ledger keeps it."""
    if granted.repository is None:
        return None
    return {"directory": str(directory_of(sandbox_id))}


def with_git(granted: SandboxSpec) -> SandboxSpec:
    """The spec with git's settings among its variables; those of the spec go before them."""
    if granted.repository is None:
        return granted
    from ringfence.workspace.making import environment

    env = {**environment(granted.repository), **granted.env}
    return granted.model_copy(update={"env": env})


async def prepare(
    granted: SandboxSpec,
    sandbox_id: str,
    facts: Facts,
    *,
    given: "WorkspacePrepared | None" = None,
    volumes: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Prepared:
    """Check every source and make the workspace, or take the `given` one.

    volumes: whether the daemon mounts overlays for a client who is not root. progress: is called on
    the event loop with the entries of the repository found so far. PolicyDeniedError,
    InvalidSpecError, and what `ringfence.workspace.prepare` raises. An error or a cancellation
    leaves nothing.
    """
    mounts = [
        Bind(
            str(check_source(mount.source, daemon_root=facts.data_root or None)),
            mount.destination,
            mount.read_only,
        )
        for mount in granted.mounts
    ]
    checked = await asyncio.to_thread(_identities, mounts) if mounts else {}
    if granted.repository is None:
        return Prepared(tuple(mounts), checked=checked)
    from ringfence.sandbox import repository
    from ringfence.sandbox.workspace import Workspace

    made = given or await repository.make(
        granted, sandbox_id, facts, volumes=volumes, progress=progress
    )
    covered = {mount.destination for mount in mounts}  # by what was asked for, not by nothing
    binds = [
        Bind(b.source, b.destination, b.read_only, b.volume)
        for b in made.binds
        if b.destination not in covered
    ]
    held = Workspace(made)
    others = [bind for bind in binds if not Path(bind.source).is_relative_to(made.directory)]
    if made.strategy == "bind":
        try:
            checked |= await asyncio.to_thread(_identities, others)
        except BaseException:
            await held.aclose()
            raise
    return Prepared((*binds, *mounts), held, checked, held.aclose)


def _identities(binds: Iterable[Bind]) -> dict[str, tuple[int, int]]:
    return {bind.destination: _identity(bind.source) for bind in binds}


def _identity(source: str) -> tuple[int, int]:
    """Device and inode of a source; PolicyDeniedError when it is behind a link by now."""
    from ringfence.workspace.beneath import open_resolved

    try:
        number = open_resolved(source, os.O_PATH)
    except OSError as error:
        raise _swapped(source, error.strerror or str(error)) from None
    try:
        status = os.fstat(number)
    finally:
        os.close(number)
    return status.st_dev, status.st_ino


def _swapped(source: str, why: str) -> PolicyDeniedError:
    return PolicyDeniedError(
        f"mount: {source!r} was replaced while the sandbox was made: {why}",
        op="open",
        context={"path": source},
    )


async def verify(prepared: Prepared, session: Session, user: User, *, inodes: bool) -> None:
    """Whether what was mounted is what was checked: engines follow links, and whoever may write
    above a source can put one in its place meanwhile. PolicyDeniedError.

    inodes: whether the sandbox sees the host's inode numbers; without (gVisor), the time of the
    last change tells one source from another.
    """
    who = user.cred
    for bind in prepared.binds:
        before = prepared.checked.get(bind.destination)
        if before is None:
            continue
        if await asyncio.to_thread(_identity, bind.source) != before:
            raise _swapped(bind.source, "it is something else by now")
        with suppress(PathDeniedError):
            if not await _is_mounted(bind, before[1] if inodes else None, session, who):
                raise _swapped(bind.source, "something else was mounted")


async def _is_mounted(bind: Bind, inode: int | None, session: Session, who: Cred) -> bool:
    """Whether the destination is the source; several looks at one that changes meanwhile."""
    for _ in range(_LOOKS):
        found = await session.files.stat(bind.destination, who)
        if inode is not None:
            return found.inode == inode
        status = await asyncio.to_thread(os.stat, bind.source)
        if found.mtime_ns == status.st_mtime_ns:
            return True
    return False
