"""`ringfence ps`: what is there."""

import asyncio
from typing import Annotated, Any

import typer

from ringfence.cli import output, shape
from ringfence.cli.common import Json, Label


def ps(
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Ended ones of the last week, too.")
    ] = False,
    label: Label = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Ids only.")] = False,
    json: Json = False,
) -> int:
    """List sandboxes. The state is the runtime's word at this moment, never a memory.

    For example:

        ringfence ps --all --label agent=7
    """
    infos = asyncio.run(_list(everything, label))
    for info in infos:
        if info.warning is not None:
            output.note(f"warning: {info.id}: {output.escape_text(info.warning)}")
        if _unknown(info):
            output.note(f"warning: {info.id}: state {output.escape_text(info.reason)}")
    if json:
        output.document([info.to_dict() for info in infos])
    elif quiet:
        for info in infos:
            output.line(info.id)
    else:
        output.table(
            ("id", "state", "backend", "image", "created", "ends", "labels"),
            [_row(info) for info in infos],
        )
    return 0


async def _list(everything: bool, label: list[str] | None) -> list[Any]:
    from ringfence.cli.pairs import pair
    from ringfence.sandbox.members import list_sandboxes

    labels = dict(pair(text, "--label") for text in label or [])
    return await list_sandboxes(labels=labels, ended=everything)


def _unknown(info: Any) -> bool:
    """Whether its runtime could not be asked: of one that runs there is no other reason to tell."""
    return str(info.state) == "running" and info.reason is not None


def _row(info: Any) -> tuple[str, ...]:
    created, ends = shape.times(info)
    state = "unknown" if _unknown(info) else str(info.state)
    return (info.id, state, info.backend, info.image or "-", created, ends or "-",
            output.labels(info.labels))  # fmt: skip
