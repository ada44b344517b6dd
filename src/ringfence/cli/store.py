"""`ringfence store`: the content store."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ringfence.cli import output
from ringfence.cli.common import Json
from ringfence.cli.exits import exits
from ringfence.cli.translate import translated
from ringfence.errors import NotFoundError

if TYPE_CHECKING:
    from ringfence.digest.store import Store

group = typer.Typer(help="The content store: what it holds.", no_args_is_help=True)

Root = Annotated[
    Path | None,
    typer.Option(
        "--root", metavar="DIR", help="An OCI layout; default: below the state directory."
    ),
]


@group.command()
@exits
def ls(root: Root = None, json: Json = False) -> int:
    """List the blobs with their sizes, and the ingests that were begun."""
    with _opened(root) as store:
        blobs = list(store.walk())
        begun = store.ingests()
        names = {entry.digest: name for name, entry in store.tags().items()}
    if json:
        output.document(
            {
                "blobs": [{**blob._asdict(), "tag": names.get(blob.digest)} for blob in blobs],
                "ingests": begun,
            }
        )
        return 0
    rows = [
        (
            blob.digest,
            output.size(blob.size),
            _when(blob.modified),
            names.get(blob.digest, ""),
            output.labels(dict(blob.labels)),
        )
        for blob in blobs
    ]
    output.table(("digest", "size", "since", "tag", "labels"), rows)
    for ref, size in begun.items():
        output.line(output.escape_text(f"ingest {ref}: {output.size(size)}"))
    return 0


@group.command()
@exits
def verify(
    root: Root = None,
    move: Annotated[bool, typer.Option("--move", help="Take damaged blobs out.")] = False,
    json: Json = False,
) -> int:
    """Read every blob and report damage. Ends with 1 when there is any."""
    with _opened(root) as store:
        found = list(store.scrub(move=move))
    if json:
        output.document([damage._asdict() for damage in found])
    for damage in found if not json else ():
        moved = ", taken out" if damage.moved else ""
        content = f", the content is {damage.found}" if damage.found else ""
        output.line(f"{damage.digest}: {damage.reason}{content}{moved}")
    return 1 if any(damage.reason != "unverifiable" for damage in found) else 0


@group.command()
@exits
def gc(
    root: Root = None,
    keep: Annotated[
        list[str] | None, typer.Option("--keep", metavar="DIGEST", help="One more root.")
    ] = None,
    grace: Annotated[float, typer.Option(help="Blobs younger than this stay; seconds.")] = 3600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: Json = False,
) -> int:
    """Remove blobs that no tag, label or --keep needs, and ingests a day old."""
    with _opened(root) as store:
        collected = store.gc(keep or (), grace=grace, dry_run=dry_run)
        _sweep(store)
    if json:
        output.document(collected._asdict())
        return 0
    for digest in collected.removed:
        output.line(str(digest))
    verb = "would be removed" if dry_run else "removed"
    output.note(f"{len(collected.removed)} blobs, {output.size(collected.size)}, {verb};"
                f" {collected.ingests} ingests")  # fmt: skip
    return 0


@group.command()
@exits
def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Tags or digests.")],
    root: Root = None,
) -> int:
    """Remove snapshots and images by tag or digest, and what only they needed."""
    from ringfence.digest.store import BlobNotFound

    with _opened(root) as store:
        for name in names:
            tags = store.tags()
            found = [tag for tag, entry in tags.items() if name in (tag, entry.digest)]
            if not found:
                raise BlobNotFound(f"nothing in the store is called {name}")
            freed = sum(_removed(store, tag, str(tags[tag].digest)) for tag in found)
            output.note(f"{name}: {output.size(freed)} freed")
        _sweep(store)
    return 0


def _removed(store: "Store", tag: str, digest: str) -> int:
    """Remove what has that tag; the bytes freed."""
    from ringfence.backends.state import state_directory
    from ringfence.sandbox.snapshots import delete_snapshot
    from ringfence.workspace.snapshot import name_of

    if store.root == state_directory() / "store" and tag == name_of(digest):
        return asyncio.run(delete_snapshot(digest))
    return store.release(tag).size


def _sweep(store: "Store") -> None:
    """Remove what was unpacked of snapshots that are gone."""
    from ringfence.backends.state import state_directory
    from ringfence.workspace import Snapshots
    from ringfence.workspace.snapshot import sweep

    state = state_directory()
    if store.root == state / "store":
        sweep(Snapshots(store, state / "snapshots"))


@contextmanager
def _opened(root: Path | None) -> "Iterator[Store]":
    from ringfence.backends.state import state_directory
    from ringfence.digest import Algorithm
    from ringfence.digest.store import Store

    for algorithm in ("sha384", "blake3"):
        Algorithm.register(algorithm)
    with translated("store"):
        if root is not None and not (root / "oci-layout").is_file():  # one would be made there
            raise NotFoundError(f"{root} is no OCI layout: it has no oci-layout file", op="store")
        yield Store(root if root is not None else state_directory() / "store")


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
