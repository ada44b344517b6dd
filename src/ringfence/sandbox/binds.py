"""What of the host appears inside a sandbox: the mounts and the repository, as binds."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.backends.base import Bind
from ringfence.backends.sources import check_source
from ringfence.spec import SandboxSpec


async def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class Prepared:
    """binds: for the backend. undo: what must be undone on this host, as the ledger keeps it.
    workspace: what `sandbox.workspace` works on. aclose: undoes it; idempotent."""

    binds: tuple[Bind, ...] = ()
    undo: Mapping[str, Any] | None = None
    workspace: object = None
    aclose: Callable[[], Awaitable[None]] = _nothing


async def prepare(granted: SandboxSpec) -> Prepared:
    """Check every source and make the workspace. PolicyDeniedError, InvalidSpecError."""
    mounts = [
        Bind(str(check_source(mount.source)), mount.destination, mount.read_only)
        for mount in granted.mounts
    ]
    repository = granted.repository
    if repository is None:
        return Prepared(tuple(mounts))
    source = await asyncio.to_thread(check_source, repository.path)
    bind = Bind(str(source), repository.mount_point, repository.mode != "rw")
    return Prepared((bind, *mounts))
