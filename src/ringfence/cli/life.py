"""`ringfence pause`, `resume`, `extend` and `snapshot`."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from ringfence.cli import output
from ringfence.cli.common import Id, Json


def pause(sandbox: Id) -> int:
    """Freeze every process of a detached sandbox until `ringfence resume`."""
    from ringfence.sandbox.members import pause_sandbox

    asyncio.run(pause_sandbox(sandbox))
    return 0


def resume(sandbox: Id) -> int:
    """Let a paused sandbox go on."""
    from ringfence.sandbox.members import resume_sandbox

    asyncio.run(resume_sandbox(sandbox))
    return 0


def extend(
    sandbox: Id,
    by: Annotated[str, typer.Argument(metavar="DURATION", help="From now, such as 30m.")],
) -> int:
    """Let a sandbox live for DURATION from now.

    For example:

        ringfence extend 3f2a 30m
    """
    return asyncio.run(_extend(sandbox, by))


async def _extend(name: str, by: str) -> int:
    import ringfence

    async with ringfence.open(id=name) as sandbox:
        await sandbox.extend(by)
    return 0


def snapshot(
    sandbox: Id,
    json: Json = False,
) -> int:
    """Keep the state of a detached sandbox; prints the digest, for `--snapshot`.

    That is its repository, and on Docker a root file system that may be written. For example:

        ringfence run --snapshot $(ringfence snapshot 3f2a) -- make test
    """
    return asyncio.run(_snapshot(sandbox, json))


async def _snapshot(name: str, json: bool) -> int:
    import ringfence

    async with ringfence.open(id=name) as sandbox:
        kept = await sandbox.snapshot()
    if json:
        output.document(asdict(kept))
    else:
        output.line(kept.digest)
    return 0
