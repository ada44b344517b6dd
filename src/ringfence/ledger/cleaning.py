"""Removing the workspace of a sandbox that is gone, with the daemon's help where it takes that."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

from ringfence.backends.finish import holding
from ringfence.ledger.entry import Entry


@runtime_checkable
class Mounting(Protocol):
    """A backend whose daemon mounts volumes for a client who may not mount."""

    async def mount_once(self, sandbox_id: str, volume: Mapping[str, str]) -> None:
        """Have it mount a volume of these options (type, device, o) and unmount it again, for a
        sandbox that is gone. Nothing runs, and nothing stays."""
        ...


async def clean(entry: Entry, backend: object) -> None:
    """Remove the workspace of an entry whose instance is gone, if it has one. Idempotent.

    What `emptied` and `ringfence.workspace.clean` raise.
    """
    if entry.workspace is None:
        return
    from ringfence import workspace

    await emptied(Path(entry.workspace["directory"]), backend)
    await asyncio.to_thread(workspace.clean, entry.workspace)


async def emptied(directory: Path, backend: object) -> None:
    """Have the kernel empty what only root may in a workspace whose instance is gone; where nothing
    of that kind is left, which is all but always so, nobody is asked. SandboxError."""
    from ringfence.workspace import emptying
    from ringfence.workspace.application import alone

    if not isinstance(backend, Mounting) or await asyncio.to_thread(emptying, directory) is None:
        return
    with suppress(FileNotFoundError):  # another has removed the workspace meanwhile
        async with holding(alone(directory, waits=True)):
            volume = await asyncio.to_thread(emptying, directory)
            if volume is not None:
                await backend.mount_once(directory.name, volume)
