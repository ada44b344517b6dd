"""`ringfence spec`: what a spec file may say, and whether one is right."""

from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli import output
from ringfence.cli.exits import exits

group = typer.Typer(
    help="Spec files: what they may say, and whether one is right.", no_args_is_help=True
)


@group.command()
@exits
def schema() -> int:
    """Print the JSON Schema of a spec file."""
    from ringfence.spec import SandboxSpec

    output.document(SandboxSpec.model_json_schema())
    return 0


@group.command()
@exits
def check(path: Annotated[Path, typer.Argument(metavar="FILE")]) -> int:
    """Read a spec file and print it with every default filled in; an error names each field."""
    from ringfence.cli.described import read_spec
    from ringfence.spec import SandboxSpec

    output.document(SandboxSpec.parse(read_spec(path)).model_dump(mode="json"))
    return 0
