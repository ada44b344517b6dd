"""The workspace of a sandbox's repository: made, or found again. Loaded with the first one."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

from ringfence import workspace
from ringfence.backends.finish import finish
from ringfence.errors import NotFoundError
from ringfence.policy.facts import Facts
from ringfence.sandbox.binds import directory_of
from ringfence.sandbox.progress import counting
from ringfence.sandbox.snapshots import tree_of
from ringfence.sandbox.workspace import Workspace
from ringfence.spec import SandboxSpec
from ringfence.workspace.stopping import Check, Count, unless


async def make(
    granted: SandboxSpec,
    sandbox_id: str,
    facts: Facts,
    *,
    volumes: bool,
    progress: Callable[[int], None] | None,
) -> workspace.Prepared:
    """The workspace of a spec with a repository; see `binds.prepare`."""
    directory = directory_of(sandbox_id)
    unwanted = threading.Event()
    try:
        async with counting(progress) as count:
            check = unless(unwanted.is_set)
            making = _made(granted, directory, facts, volumes, check=check, count=count)
            return await finish(making, hurry=unwanted.set)
    except BaseException:
        await finish(asyncio.to_thread(workspace.clean, directory))
        raise


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
        mounts=[*(one.destination for one in granted.mounts), *granted.security.tmpfs],
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
