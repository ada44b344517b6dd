"""`ringfence audit`: whether a log is as it was written."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli import output
from ringfence.cli.common import Json
from ringfence.cli.exits import exits
from ringfence.errors import NotFoundError

group = typer.Typer(help="Audit logs: check their chain of digests.", no_args_is_help=True)


@group.command()
@exits
def verify(
    path: Annotated[Path, typer.Argument(metavar="FILE")],
    head: Annotated[
        str | None, typer.Option(help="Digest of the last entry as you kept it: finds a cut end.")
    ] = None,
    json: Json = False,
) -> int:
    """Check that every entry follows from the one before. Ends with 1 when one does not.

    For example:

        ringfence run --audit log.jsonl -- make test; ringfence audit verify log.jsonl
    """
    from ringfence.ledger import audit

    try:
        verdict = audit.verify(path)
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}", op="audit") from None
    cut = verdict.ok and head is not None and verdict.head != head
    if json:
        output.document({**asdict(verdict), "ok": verdict.ok and not cut, "cut": cut})
    elif not verdict.ok:
        output.line(f"line {verdict.line}: {verdict.problem}")
    elif cut:
        output.line(f"the log ends with {verdict.head}: entries after it are missing")
    else:
        output.line(f"{verdict.entries} entries hold; the last is {verdict.head}")
    return 0 if verdict.ok and not cut else 1
