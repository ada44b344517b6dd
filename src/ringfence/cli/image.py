"""`ringfence image`: images on the Docker Engine, and the lock file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli import output
from ringfence.cli.common import Json
from ringfence.cli.exits import exits
from ringfence.cli.pairs import misuse
from ringfence.cli.supply import login_of, named, read_lock, teller, wanted_labels, with_supply
from ringfence.cli.translate import translated
from ringfence.cli.unpacked import AGE
from ringfence.cli.unpacked import prune as prune_unpacked

if TYPE_CHECKING:
    from ringfence.backends.docker.stored import Stored
    from ringfence.backends.docker.supply import Supply
    from ringfence.images import Lock

group = typer.Typer(help="Images: pull, pin, import, build, remove.", no_args_is_help=True)

LockFile = Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help="The lock file.")]
Labels = Annotated[
    list[str] | None, typer.Option("--label", "-l", metavar="K[=V]", help="Only with this label.")
]
Names = Annotated[list[str], typer.Argument(metavar="IMAGE...")]
Tag = Annotated[
    str | None, typer.Option("--tag", "-t", metavar="NAME[:TAG]", help="What to call it.")
]
_LOCK = Path("ringfence.lock")


@group.command()
@exits
def pull(
    names: Names,
    locked: Annotated[
        Path | None, typer.Option("--locked", metavar="FILE", help="Only what this file locked.")
    ] = None,
    username: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Log in with it; needs --password-stdin."),
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    json: Json = False,
) -> int:
    """Pull images by digest; a tag is resolved first. Prints the pinned references.

    A registry's login is the one that Docker has for it, or --username with --password-stdin.
    """
    with translated("image"):
        login = login_of(username, password_stdin=password_stdin)

    async def work(supply: "Supply") -> list[dict[str, Any]]:
        from ringfence.images import Reference

        lock = read_lock(locked) if locked else None
        found = []
        for name in names:
            reference = Reference.parse_familiar(name)
            if lock is not None:
                lock.require(reference)
            wanted = reference if lock is None else lock.resolve(reference)
            stored, pinned = await supply.pull(wanted, tell=teller(), login=login)
            if lock is not None:
                lock.check(reference, stored.manifests(reference), stored.id)
            found.append({**stored.to_dict(), "reference": str(pinned)})
        return found

    found = with_supply(work)
    if json:
        output.document(found)
    for entry in found if not json else ():
        output.line(entry["reference"])
    return 0


@group.command()
@exits
def lock(
    names: Annotated[list[str] | None, typer.Argument(metavar="[IMAGE...]")] = None,
    file: LockFile = _LOCK,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing: compare the daemon's images.")
    ] = False,
) -> int:
    """Write down which content tags stand for now, or check that they still do.

    Without --check: the daemon's images are written into the file; no IMAGE means those that the
    file has. With --check, an image that is another one now is an error that names both digests.
    """

    async def work(supply: "Supply") -> "Lock":
        from ringfence.errors import InvalidSpecError
        from ringfence.images import Reference

        held = read_lock(file, missing_is_empty=not check)
        for name in names or list(held.pins):
            reference = Reference.parse_familiar(name)
            stored = await supply.inspect(reference.with_tag().familiar())
            if check:
                held.check(reference, stored.manifests(reference), stored.id)
            else:
                held = held.locked(reference, stored.pin(reference))
        if not held.pins:
            raise InvalidSpecError(f"{file} has no image: name those to lock", op="lock")
        return held

    held = with_supply(work)
    if not check:
        with translated("image"):
            file.write_text(held.render())
    for name, pin in sorted(held.pins.items()):
        output.line(f"{name} {pin}")
    return 0


@group.command(name="import")
@exits
def import_(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A tar, an OCI layout, a directory.")
    ],
    tag: Tag = None,
    name: Annotated[str | None, typer.Option(help="Which image of a layout.")] = None,
    change: Annotated[
        list[str] | None, typer.Option(help='A Dockerfile instruction, such as CMD ["sh"].')
    ] = None,
    json: Json = False,
) -> int:
    """Make an image of a file or a directory. Prints its id."""

    async def work(supply: "Supply") -> "Stored":
        return await supply.import_(path, named(tag), name=name, changes=change or ())

    return _one(with_supply(work), json)


@group.command()
@exits
def export(
    name: Annotated[str, typer.Argument(metavar="IMAGE")],
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="An OCI layout; default: the content store."),
    ] = None,
    tag: Annotated[
        str | None, typer.Option("--tag", "-t", metavar="NAME", help="What the store calls it.")
    ] = None,
) -> int:
    """Put an image of the daemon into a content store. Prints its manifest's digest."""

    async def work(supply: "Supply") -> str:
        from ringfence.backends.state import state_directory
        from ringfence.digest.store import Store

        store = Store(root if root is not None else state_directory() / "store")
        return str(await supply.export(name, store, tag=tag))

    output.line(with_supply(work))
    return 0


@group.command()
@exits
def build(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="The context.")] = Path(),
    tag: Tag = None,
    dockerfile: Annotated[str, typer.Option("--file", "-f", help="Below DIR.")] = "Dockerfile",
    arguments: Annotated[
        list[str] | None, typer.Option("--build-arg", metavar="K=V", help="For ARG.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="K=V", help="For the image.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The stage to end with.")] = None,
    network: Annotated[bool, typer.Option("--network", help="Let RUN reach the network.")] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every step.")] = False,
    json: Json = False,
) -> int:
    """Build an image from a Dockerfile; RUN has no network unless asked for. Prints its id."""

    async def work(supply: "Supply") -> "Stored":
        from ringfence.cli.pairs import pair

        return await supply.build(
            directory,
            named(tag),
            dockerfile=dockerfile,
            arguments=dict(pair(text, "--build-arg") for text in arguments or ()),
            labels=dict(pair(text, "--label") for text in label or ()),
            target=target,
            network=network,
            cache=not no_cache,
            tell=teller(),
        )

    return _one(with_supply(work), json)


@group.command()
@exits
def ls(label: Labels = None, json: Json = False) -> int:
    """List the daemon's images."""

    async def work(supply: "Supply") -> "list[Stored]":
        return await supply.images(wanted_labels(label))

    found = with_supply(work)
    if json:
        output.document([stored.to_dict() for stored in found])
        return 0
    rows = [
        (stored.id.encoded[:12], output.size(stored.size), ", ".join(stored.tags) or "-")
        for stored in found
    ]
    output.table(("id", "size", "tags"), rows)
    return 0


@group.command()
@exits
def inspect(name: Annotated[str, typer.Argument(metavar="IMAGE")], json: Json = False) -> int:
    """Show an image: id, tags, digests, labels."""

    async def work(supply: "Supply") -> "Stored":
        return await supply.inspect(name)

    data = with_supply(work).to_dict()
    if json:
        output.document(data)
    else:
        output.fields({**data, "size": output.size(data["size"])})
    return 0


@group.command()
@exits
def rm(
    names: Names, force: Annotated[bool, typer.Option("--force", help="Even if in use.")] = False
) -> int:
    """Remove tags, and images with their last tag."""

    async def work(supply: "Supply") -> None:
        for name in names:
            await supply.remove(name, force=force)

    with_supply(work)
    return 0


@group.command()
@exits
def prune(
    label: Labels = None,
    tagged: Annotated[bool, typer.Option("--tagged", help="Those with tags, too.")] = False,
    unpacked: Annotated[
        bool, typer.Option("--unpacked", help="Those that the process backend unpacked.")
    ] = False,
    older_than: Annotated[
        str, typer.Option(metavar="DURATION", help="Of --unpacked, those not used for so long.")
    ] = AGE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --unpacked, only say what would go.")
    ] = False,
    json: Json = False,
) -> int:
    """Remove images with a label that no container needs, or those unpacked. Prints what went."""
    if unpacked is bool(label) or (unpacked and tagged):
        raise misuse("prune takes --label, with --tagged or without, or --unpacked")
    if unpacked:
        return prune_unpacked(older_than, dry_run=dry_run, json=json)
    if dry_run or older_than != AGE:
        raise misuse("--dry-run and --older-than go with --unpacked")

    async def work(supply: "Supply") -> list[str]:
        return await supply.prune(wanted_labels(label) or {}, tagged=tagged)

    gone = with_supply(work)
    if json:
        output.document(gone)
    for text in gone if not json else ():
        output.line(text)
    return 0


def _one(stored: "Stored", json: bool) -> int:
    if json:
        output.document(stored.to_dict())
    else:
        output.line(str(stored.id))
    return 0
