"""`ringfence spec schema`: what a spec file may say."""

from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli import output

group = typer.Typer(
    help="Spec files: what they may say, and whether one is right.", no_args_is_help=True
)


@group.command()
def schema() -> None:
    """Print the JSON Schema of a spec file."""
    from ringfence.spec import SandboxSpec

    output.document(SandboxSpec.model_json_schema())


@group.command()
def check(path: Annotated[Path, typer.Argument(metavar="FILE")]) -> None:
    """Read a spec file and print it with every default filled in; an error names each field."""
    from ringfence.cli.described import read_spec
    from ringfence.spec import SandboxSpec

    output.document(SandboxSpec.parse(read_spec(path)).model_dump(mode="json"))
