"""`ringfence repo plan`: what a sandbox would see of a directory, before anything runs."""

from typing import Annotated, Any

import typer

from ringfence.cli import output
from ringfence.cli.common import Json
from ringfence.cli.exits import exits

group = typer.Typer(help="Repositories: what of them goes in.", no_args_is_help=True)


@group.command()
@exits
def plan(
    path: Annotated[str, typer.Argument(metavar="[DIR]", help="Or a URL.")] = ".",
    mode: Annotated[str, typer.Option(help="copy, ro or rw.")] = "copy",
    ref: Annotated[
        str | None, typer.Option(help="Branch, tag or commit instead of the working tree.")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Only these (gitignore patterns).")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Not these.")] = None,
    gitignore: Annotated[
        bool, typer.Option("--gitignore", help="Leave out what .gitignore names.")
    ] = False,
    history: Annotated[str | None, typer.Option(help="head (one commit) or full.")] = None,
    files: Annotated[bool, typer.Option("--files", help="Name every visible file.")] = False,
    json: Json = False,
) -> int:
    """Print what would be visible, what is hidden and why, and what to know about it.

    Nothing runs and nothing is changed; a URL is cloned and thrown away. For example:

        ringfence repo plan . --exclude '*.csv' --files
    """
    from ringfence.backends.state import state_directory
    from ringfence.sandbox.binds import WORKSPACES
    from ringfence.spec import Repository
    from ringfence.workspace import plan as look

    repository = Repository.parse(
        {
            "path": path,
            "mode": mode,
            "ref": ref,
            "include": tuple(include or ()),
            "exclude": tuple(exclude or ()),
            "gitignore": gitignore,
            "history": history,
        }
    )
    found = look(repository, workspaces=state_directory() / WORKSPACES)
    if json:
        output.document(described(found))
    else:
        _print(found, files)
    return 0


def described(found: Any) -> dict[str, Any]:
    """A plan as JSON-able data."""
    return {
        "root": str(found.source.root),
        "files": found.selection.files,
        "bytes": found.selection.size,
        "history": found.history,
        "visible": [entry.path for entry in found.selection.entries if entry.kind != "directory"],
        "hidden": found.hidden,
        "warnings": found.warnings,
    }


def _print(found: Any, files: bool) -> None:
    from ringfence.workspace.failures import shown

    selection = found.selection
    if files:
        for entry in selection.entries:
            if entry.kind != "directory":
                output.line(output.escape_name(shown(entry.path)))
    if found.hidden:
        output.table(
            ("hidden", "why"),
            [(shown(path), reason) for path, reason in sorted(found.hidden.items())],
        )
    output.line(f"{selection.files} files are visible, {output.size(selection.size)}")
    output.line(f"git history inside: {found.history or 'none'}")
    for warning in found.warnings:
        output.note(output.escape_text(warning))
