"""`ringfence rm` and `ringfence reap`: end sandboxes."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ringfence.cli import output
from ringfence.cli.common import Json
from ringfence.errors import InvalidSpecError, SandboxError


def rm(
    sandboxes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID...]", show_default=False, help="Ids, or their beginnings."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="K=V", help="All with this label.")
    ] = None,
    json: Json = False,
) -> int:
    """End sandboxes and remove all that belongs to them. Ends with 1 when one could not be.

    One that has ended already is no failure. For example:

        ringfence rm --label agent=7
    """
    if not sandboxes and not label:
        raise InvalidSpecError("rm: name a sandbox, or a --label", op="usage")
    return asyncio.run(_rm(list(sandboxes or []), label, json))


async def _rm(names: list[str], label: list[str] | None, json: bool) -> int:
    from ringfence.cli.pairs import pair
    from ringfence.sandbox.members import delete_sandbox, list_sandboxes

    if label:
        labels = dict(pair(text, "--label") for text in label)
        names += [info.id for info in await list_sandboxes(labels=labels)]
    deleted: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for name in names:
        try:
            info = await delete_sandbox(name)
        except SandboxError as error:
            output.error(error)
            errors.append(error.to_dict())
        else:
            deleted.append(info.to_dict())
            if not json:
                output.line(info.id)
    if json:
        output.document({"deleted": deleted, "errors": errors})
    return 1 if errors else 0


def reap(
    json: Json = False,
) -> int:
    """Finish what killed clients left and what outlived its time. It also happens by itself."""
    from ringfence.ledger import Ledger
    from ringfence.ledger import reap as sweep

    done = asyncio.run(sweep(Ledger.default()))
    if json:
        output.document([asdict(one) for one in done])
    else:
        for one in done:
            output.line(output.escape_name(f"{one.id}  {one.error or one.reason}"))
    return 1 if any(one.error for one in done) else 0
