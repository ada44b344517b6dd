"""What of the host appears inside a sandbox: the mounts and the repository, as binds."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringfence import workspace
from ringfence.backends.base import Bind
from ringfence.backends.finish import finish
from ringfence.backends.sources import check_source
from ringfence.backends.state import state_directory
from ringfence.errors import NotFoundError, PathDeniedError, PolicyDeniedError
from ringfence.guest.control import User
from ringfence.guest.protocol import Cred
from ringfence.guest.session import Session
from ringfence.policy.facts import Facts
from ringfence.sandbox.progress import counting
from ringfence.sandbox.snapshots import tree_of
from ringfence.sandbox.workspace import Workspace
from ringfence.spec import SandboxSpec
from ringfence.workspace.beneath import open_resolved
from ringfence.workspace.making import environment
from ringfence.workspace.stopping import Check, Count, unless

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
    workspace: Workspace | None = None
    checked: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    aclose: Callable[[], Awaitable[None]] = _nothing


def directory_of(sandbox_id: str) -> Path:
    """The directory of a sandbox's workspace."""
    return state_directory() / WORKSPACES / sandbox_id


def undo_of(granted: SandboxSpec, sandbox_id: str) -> Mapping[str, Any] | None:
    """What must be undone on this host when the holder is gone, as the ledger keeps it."""
    if granted.repository is None:
        return None
    return {"directory": str(directory_of(sandbox_id))}


def with_git(granted: SandboxSpec) -> SandboxSpec:
    """The spec with git's settings among its variables; those of the spec go before them."""
    if granted.repository is None:
        return granted
    env = {**environment(granted.repository), **granted.env}
    return granted.model_copy(update={"env": env})


async def prepare(
    granted: SandboxSpec,
    sandbox_id: str,
    facts: Facts,
    *,
    given: workspace.Prepared | None = None,
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
    made = given
    if made is None:
        directory = directory_of(sandbox_id)
        unwanted = threading.Event()
        try:
            async with counting(progress) as count:
                check = unless(unwanted.is_set)
                making = _made(granted, directory, facts, volumes, check=check, count=count)
                made = await finish(making, hurry=unwanted.set)
        except asyncio.CancelledError:
            await finish(asyncio.to_thread(workspace.clean, directory))
            raise
    binds = [Bind(b.source, b.destination, b.read_only, b.volume) for b in made.binds]
    held = Workspace(made)
    others = [bind for bind in binds if not Path(bind.source).is_relative_to(made.directory)]
    if made.strategy == "bind":
        checked |= await asyncio.to_thread(_identities, others)
    return Prepared((*binds, *mounts), held, checked, held.aclose)


def _identities(binds: Iterable[Bind]) -> dict[str, tuple[int, int]]:
    return {bind.destination: _identity(bind.source) for bind in binds}


def _identity(source: str) -> tuple[int, int]:
    """Device and inode of a source; PolicyDeniedError when it is behind a link by now."""
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
    who = Cred(user.uid, user.gid, user.groups)
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


async def _made(
    granted: SandboxSpec,
    directory: Path,
    facts: Facts,
    volumes: bool,
    *,
    check: Check,
    count: Count,
) -> workspace.Prepared:
    assert granted.repository is not None  # noqa: S101 - asked for by the caller alone
    whom = whom_for(granted, facts, volumes=volumes)
    start = None
    if granted.snapshot is not None:
        start = await asyncio.to_thread(tree_of, granted.snapshot)
    return await asyncio.to_thread(
        workspace.prepare,
        granted.repository,
        check=check,
        count=count,
        directory=directory,
        uid=whom.uid,
        gid=whom.gid,
        privileged=whom.privileged,
        volumes=whom.volumes,
        forbidden=(Path(facts.data_root),) if facts.data_root else (),
        start=start,
    )


def whom_for(granted: SandboxSpec, facts: Facts, *, volumes: bool = False) -> workspace.For:
    """Whom the workspace of this spec is for."""
    uid, gid = _ids(granted, facts)
    privileged = facts.local and os.geteuid() == 0
    return workspace.For(uid, gid, privileged, volumes and facts.local and not privileged)


def _ids(granted: SandboxSpec, facts: Facts) -> tuple[int, int]:
    """uid and gid of the commands' user; the repository's own when only a name is known."""
    owner, group = facts.repository_uid or 0, facts.repository_gid or 0
    name, _, of = (granted.user or "").partition(":")
    if not name.isdecimal():
        return owner, group
    uid = int(name)
    if of.isdecimal():
        return uid, int(of)
    return uid, group if uid == owner else uid


async def held(sandbox_id: str) -> Workspace | None:
    """The workspace that another process made for this sandbox; None when it has none."""
    try:
        found = await asyncio.to_thread(
            workspace.attach, {"directory": str(directory_of(sandbox_id))}
        )
    except NotFoundError:
        return None
    return Workspace(found)
