"""`ringfence pause`, `resume` and `extend`."""

import asyncio
from typing import Annotated

import typer

Name = Annotated[str, typer.Argument(metavar="ID", help="Id, or the beginning of one.")]


def pause(sandbox: Name) -> int:
    """Freeze every process of a sandbox until `ringfence resume`."""
    return asyncio.run(_call(sandbox, "pause"))


def resume(sandbox: Name) -> int:
    """Let a paused sandbox go on."""
    return asyncio.run(_call(sandbox, "resume"))


def extend(
    sandbox: Name,
    by: Annotated[str, typer.Argument(metavar="DURATION", help="From now, such as 30m.")],
) -> int:
    """Let a sandbox live for DURATION from now."""
    return asyncio.run(_call(sandbox, "extend", by))


async def _call(name: str, operation: str, *arguments: str) -> int:
    import ringfence

    async with ringfence.open(id=name) as sandbox:
        await getattr(sandbox, operation)(*arguments)
    return 0
