"""`ringfence ps`: what is there."""

import asyncio
import time
from typing import Annotated, Any

import typer

from ringfence.cli import output


def ps(
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Ended ones of the last week, too.")
    ] = False,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="K=V", help="Only with this label.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Ids only.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> int:
    """List sandboxes. The state is the runtime's word at this moment, never a memory."""
    infos = asyncio.run(_list(everything, label))
    for info in infos:
        if info.warning is not None:
            output.note(f"warning: {info.id}: {output.escape_text(info.warning)}")
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


def _row(info: Any) -> tuple[str, ...]:
    now = time.time()
    ends = "" if info.ends is None else f"in {span(info.ends - now)}"
    if info.state == "exited":
        ends = info.reason or ""
    labels = ",".join(f"{name}={value}" for name, value in sorted(info.labels.items()))
    return (info.id, str(info.state), info.backend, info.image or "-",
            f"{span(now - info.created)} ago", ends, labels)  # fmt: skip


def span(seconds: float) -> str:
    """Seconds as a person says them: 45s, 12m, 3h, 2d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"
