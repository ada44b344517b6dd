"""Arguments and options that several verbs have."""

from pathlib import Path
from typing import Annotated

import typer

Id = Annotated[str, typer.Argument(metavar="ID", help="Id, or the beginning of one.")]
"""The argument of every verb about one sandbox that is there."""
Label = Annotated[
    list[str] | None, typer.Option("--label", "-l", metavar="K=V", help="Only with this label.")
]
"""The option of the verbs about sandboxes that are there, for those with a label."""
Audit = Annotated[
    Path | None,
    typer.Option(
        "--audit",
        metavar="FILE",
        help="Append what happens to this log; see `ringfence audit verify`.",
    ),
]
"""The option of every verb that opens a sandbox to do something in it."""
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
"""The option of the verbs whose answer a script may read."""
