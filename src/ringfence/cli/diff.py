"""`ringfence diff` and `ringfence apply`: what changed in a sandbox's repository."""

import sys
from typing import Annotated, Any

import typer

from ringfence.cli import output
from ringfence.cli.common import Id, Json
from ringfence.errors import NotFoundError


def diff(
    sandbox: Id,
    stat: Annotated[bool, typer.Option("--stat", help="A summary instead of the patch.")] = False,
    parent: Annotated[
        bool, typer.Option("--parent", help="Of a fork: compare with its parent.")
    ] = False,
    json: Json = False,
) -> int:
    """Print what changed as a git patch, for `git apply`.

    The host compares the files themselves; what runs inside goes on meanwhile. For example:

        ringfence diff 3f2a | git apply
    """
    found = _workspace(sandbox)
    since = "parent" if parent else "repository"
    if json:
        output.document(_changes(found.changes(since=since)))
        return 0
    patch = found.patch(since=since)
    if stat:
        output.line(output.escape_text(patch.stat.rstrip("\n")))
        return 0
    sys.stdout.flush()
    sys.stdout.buffer.write(output.escape(patch.data) if sys.stdout.isatty() else patch.data)
    sys.stdout.buffer.flush()
    return 0


def apply(
    sandbox: Id,
    json: Json = False,
) -> int:
    """Write what changed into the original, whole or not at all.

    Refused when a file of the original is neither what the sandbox started from nor what was
    applied last. Applied again, what came since is written, and named. For example:

        ringfence diff --stat 3f2a && ringfence apply 3f2a
    """
    from ringfence.workspace import applied
    from ringfence.workspace import apply as write

    found = _workspace(sandbox)
    again = bool(applied.read(found.directory))
    stat = "" if again else found.patch().stat
    changes = write(found)
    if json:
        output.document(_changes(changes))
    elif stat:
        output.line(output.escape_text(stat.rstrip("\n")))
    else:
        for change in changes:
            output.line(f"{change.kind} {output.escape_name(change.path)}")
    return 0


def _workspace(name: str) -> Any:
    """The workspace of a sandbox that is on record."""
    from ringfence.ledger import Ledger
    from ringfence.workspace import attach

    entry = Ledger.default().get(name)
    if entry.workspace is None or not entry.live:
        raise NotFoundError(
            f"sandbox {entry.record.id} has no workspace" if entry.live
            else f"sandbox {entry.record.id} has ended, and its workspace with it",
            op="diff",
        )  # fmt: skip
    return attach(entry.workspace)


def _changes(changes: Any) -> dict[str, Any]:
    return {
        "changes": [
            {
                "path": change.path,
                "kind": change.kind,
                "old_path": change.old_path,
                "size": change.size,
                "digest": change.digest,
            }
            for change in changes
        ],
        "refused": dict(changes.refused),
    }
