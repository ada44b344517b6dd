"""`ringfence create`: a sandbox that goes on after this command."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ringfence.cli import output
from ringfence.cli.common import Audit
from ringfence.cli.opening import opened
from ringfence.cli.options import describes_a_sandbox
from ringfence.errors import InvalidSpecError

if TYPE_CHECKING:
    from ringfence.spec import SandboxInfo, SandboxSpec


@describes_a_sandbox
def create(
    spec: "SandboxSpec",
    audit: Audit = None,
    json: Annotated[bool, typer.Option("--json", help="Its info as a JSON document.")] = False,
) -> int:
    """Make a sandbox that lives until its lifetime ends, and print its id.

    For example:

        ringfence create --lifetime 1h --image python:3.12-slim

    Then `ringfence exec ID -- ...`, `shell`, `cp`, `diff`; `ringfence rm ID` ends it earlier.
    """
    if spec.lifetime is None:
        raise InvalidSpecError(
            "create: say how long it may live, such as --lifetime 1h", op="usage"
        )
    return asyncio.run(_create(spec.model_copy(update={"detached": True}), audit, json))


async def _create(spec: "SandboxSpec", audit: Path | None, json: bool) -> int:
    info: SandboxInfo | None = None
    try:
        async with opened(spec, audit) as sandbox:
            info = sandbox.info
        if json:
            output.document(info.to_dict())
        else:
            output.line(info.id)
    except BaseException:
        if info is not None:  # nobody was told of it
            await _delete(info.id)
        raise
    return 0


async def _delete(name: str) -> None:
    from ringfence.sandbox.members import delete_sandbox

    await delete_sandbox(name)
