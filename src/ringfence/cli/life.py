"""`ringfence pause`, `resume` and `extend`."""

import asyncio
from typing import Annotated

import typer

Name = Annotated[str, typer.Argument(metavar="ID", help="Id, or the beginning of one.")]


def pause(sandbox: Name) -> int:
    """Freeze every process of a detached sandbox until `ringfence resume`."""
    from ringfence.sandbox.members import pause_sandbox

    asyncio.run(pause_sandbox(sandbox))
    return 0


def resume(sandbox: Name) -> int:
    """Let a paused sandbox go on."""
    from ringfence.sandbox.members import resume_sandbox

    asyncio.run(resume_sandbox(sandbox))
    return 0


def extend(
    sandbox: Name,
    by: Annotated[str, typer.Argument(metavar="DURATION", help="From now, such as 30m.")],
) -> int:
    """Let a sandbox live for DURATION from now."""
    return asyncio.run(_extend(sandbox, by))


async def _extend(name: str, by: str) -> int:
    import ringfence

    async with ringfence.open(id=name) as sandbox:
        await sandbox.extend(by)
    return 0
