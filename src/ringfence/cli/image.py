"""`ringfence image`: images on the Docker Engine, and the lock file."""

import asyncio
import json as jsonlib
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ringfence.cli import output
from ringfence.cli.exits import exits
from ringfence.cli.translate import translated

if TYPE_CHECKING:
    from ringfence.backends.docker.progress import Progress
    from ringfence.backends.docker.stored import Stored
    from ringfence.backends.docker.supply import Supply
    from ringfence.images import Lock
    from ringfence.images.credentials import Credentials

group = typer.Typer(help="Images: pull, pin, import, build, remove.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
LockFile = Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help="The lock file.")]
Labels = Annotated[
    list[str] | None, typer.Option("--label", "-l", metavar="K[=V]", help="Only with this label.")
]
Names = Annotated[list[str], typer.Argument(metavar="IMAGE...")]
Tag = Annotated[
    str | None, typer.Option("--tag", "-t", metavar="NAME[:TAG]", help="What to call it.")
]
_LOCK = Path("ringfence.lock")
T = TypeVar("T")


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
        login = _login(username, password_stdin=password_stdin)

    async def work(supply: "Supply") -> list[dict[str, Any]]:
        from ringfence.images import Reference

        lock = _read(locked) if locked else None
        found = []
        for name in names:
            reference = Reference.parse_familiar(name)
            if lock is not None:
                lock.require(reference)
            wanted = reference if lock is None else lock.resolve(reference)
            stored, pinned = await supply.pull(wanted, tell=_teller(), login=login)
            if lock is not None:
                lock.check(reference, stored.manifests(reference), stored.id)
            found.append({**stored.to_dict(), "reference": str(pinned)})
        return found

    found = _with(work)
    if json:
        output.document(found)
    for entry in found if not json else ():
        output.line(entry["reference"])
    return 0


@group.command()
@exits
def lock(
    names: Annotated[list[str] | None, typer.Argument(metavar="[IMAGE]...")] = None,
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

        held = _read(file, missing_is_empty=not check)
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

    held = _with(work)
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
        return await supply.import_(path, _named(tag), name=name, changes=change or ())

    return _one(_with(work), json)


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

    output.line(_with(work))
    return 0


@group.command()
@exits
def build(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The context.")] = Path(),
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
        from ringfence.cli.options import pair

        return await supply.build(
            directory,
            _named(tag),
            dockerfile=dockerfile,
            arguments=dict(pair(text, "--build-arg") for text in arguments or ()),
            labels=dict(pair(text, "--label") for text in label or ()),
            target=target,
            network=network,
            cache=not no_cache,
            tell=_teller(),
        )

    return _one(_with(work), json)


@group.command()
@exits
def ls(label: Labels = None, json: Json = False) -> int:
    """List the daemon's images."""

    async def work(supply: "Supply") -> "list[Stored]":
        return await supply.images(_wanted(label))

    found = _with(work)
    if json:
        output.document([stored.to_dict() for stored in found])
        return 0
    rows = [
        (stored.id.encoded[:12], f"{stored.size / 1e6:.1f} MB", ", ".join(stored.tags) or "-")
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

    data = _with(work).to_dict()
    if json:
        output.document(data)
    else:
        output.fields({key: jsonlib.dumps(value) if isinstance(value, (list, dict)) else value
                       for key, value in data.items()})  # fmt: skip
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

    _with(work)
    return 0


@group.command()
@exits
def prune(
    label: Annotated[list[str], typer.Option("--label", "-l", metavar="K[=V]")],
    tagged: Annotated[bool, typer.Option("--tagged", help="Those with tags, too.")] = False,
) -> int:
    """Remove images with a label that no container needs. Prints what went."""

    async def work(supply: "Supply") -> list[str]:
        return await supply.prune(_wanted(label) or {}, tagged=tagged)

    for text in _with(work):
        output.line(text)
    return 0


def _with(work: "Callable[[Supply], Coroutine[Any, Any, T]]") -> T:
    from ringfence.backends.docker.supply import Supply

    async def go() -> T:
        async with Supply() as supply:
            return await work(supply)

    with translated("image"):
        return asyncio.run(go())


def _login(username: str | None, *, password_stdin: bool) -> "Credentials | None":
    from ringfence.errors import InvalidSpecError
    from ringfence.images.credentials import Credentials

    if (username is not None) is not password_stdin:
        raise InvalidSpecError("--username and --password-stdin go together", op="pull")
    if username is None:
        return None
    return Credentials(username, sys.stdin.readline().rstrip("\r\n"))


def _one(stored: "Stored", json: bool) -> int:
    if json:
        output.document(stored.to_dict())
    else:
        output.line(str(stored.id))
    return 0


def _named(tag: str | None) -> Any:
    from ringfence.images import Reference

    return None if tag is None else Reference.parse_familiar(tag)


def _wanted(labels: list[str] | None) -> dict[str, str | None] | None:
    if not labels:
        return None
    pairs = (text.partition("=") for text in labels)
    return {name: text if equals else None for name, equals, text in pairs}


def _read(file: Path, *, missing_is_empty: bool = False) -> "Lock":
    from ringfence.images import Lock

    try:
        return Lock.parse(file.read_text())
    except FileNotFoundError:
        if missing_is_empty:
            return Lock()
        raise


def _teller() -> "Callable[[Progress], None]":
    """Shows a pull's layers or a build's steps on stderr: each new status once."""
    seen: set[tuple[str, str]] = set()

    def tell(step: "Progress") -> None:
        if step.output.strip():
            output.note(output.escape_text(step.output.rstrip()))
        elif step.status and (step.layer, step.status) not in seen:
            seen.add((step.layer, step.status))
            output.note(output.escape_text(f"{step.layer} {step.status}".strip()))

    return tell
