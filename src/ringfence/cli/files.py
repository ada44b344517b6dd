"""`ringfence ls` and `ringfence cp`: a sandbox's files from outside."""

import asyncio
import posixpath
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli import output
from ringfence.cli.common import Audit, Json
from ringfence.errors import InvalidSpecError

_LETTERS = {
    "file": "-",
    "directory": "d",
    "symlink": "l",
    "fifo": "p",
    "socket": "s",
    "character_device": "c",
    "block_device": "b",
}


def ls(
    target: Annotated[str, typer.Argument(metavar="ID[:PATH]", help="PATH defaults to its cwd.")],
    long: Annotated[bool, typer.Option("--long", "-l", help="Mode, owner, size, time.")] = False,
    user: Annotated[
        str | None, typer.Option("--user", "-u", help="With whose permissions.")
    ] = None,
    json: Json = False,
) -> int:
    """List a directory inside a sandbox.

    For example:

        ringfence ls -l 3f2a:/tmp
    """
    return asyncio.run(_ls(target, long, user, json))


async def _ls(target: str, long: bool, user: str | None, json: bool) -> int:
    import ringfence

    name, _, path = target.partition(":")
    async with ringfence.open(id=name) as sandbox:
        entries = await _all_of(sandbox, path or sandbox.cwd, user)
    entries.sort(key=lambda entry: entry.name)
    if json:
        output.document([entry._asdict() for entry in entries])
    elif long:
        for entry in entries:
            mode = _LETTERS.get(entry.kind, "?") + stat.filemode(entry.mode)[1:]
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.mtime))
            line = f"{mode} {entry.uid:>5} {entry.gid:>5} {entry.size:>12} {when}"
            output.line(f"{line} {output.escape_name(entry.name)}")
    else:
        for entry in entries:
            output.line(output.escape_name(entry.name))
    return 0


async def _all_of(sandbox: Any, path: str, user: str | None) -> list[Any]:
    found = []
    cursor: bytes | None = None
    while True:
        page = await sandbox.files.list(path, cursor=cursor, user=user)
        found += page.entries
        cursor = page.cursor
        if cursor is None:
            return found


def cp(
    source: Annotated[str, typer.Argument(metavar="SRC", help="PATH, or ID:PATH.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="PATH, or ID:PATH.")],
    user: Annotated[
        str | None, typer.Option("--user", "-u", help="With whose permissions.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
    audit: Audit = None,
) -> int:
    """Copy a file or a tree into a sandbox or out of it.

    As with cp -r it goes below DST where that is a directory, and is called DST otherwise; of DIR/.
    the content goes. PATH defaults to the sandbox's cwd.

    What comes out is checked: no links out of the tree, no devices, no setuid bits. For example:

        ringfence cp data.csv 3f2a:/tmp

        ringfence cp 3f2a:/workspace/report ./report
    """
    inward, outward = _inside(destination), _inside(source)
    if (inward is None) == (outward is None):
        raise InvalidSpecError(
            "cp: one of SRC and DST is ID:PATH, the other a PATH here, such as ./NAME where NAME"
            " has a colon",
            op="usage",
        )
    with _progress(quiet) as progress:
        if inward is not None:
            asyncio.run(_in(source, *inward, user, progress, audit))
        else:
            assert outward is not None  # noqa: S101 - checked above
            asyncio.run(_out(*outward, destination, user, progress, audit))
    return 0


def _inside(text: str) -> tuple[str, str] | None:
    name, colon, path = text.partition(":")
    if not colon or "/" in name or not name:
        return None
    return name, path


async def _in(
    source: str, name: str, path: str, user: str | None, progress: Any, audit: Path | None
) -> None:
    import ringfence

    async with ringfence.open(id=name, audit=audit) as sandbox:
        path = path or sandbox.cwd
        if path.endswith("/") or await _is_directory(sandbox, path, user):
            path = posixpath.join(path, _called(source))
        await sandbox.files.upload(source, path, user=user, progress=progress)


async def _out(
    name: str, path: str, destination: str, user: str | None, progress: Any, audit: Path | None
) -> None:
    import ringfence

    target = Path(destination)
    async with ringfence.open(id=name, audit=audit) as sandbox:
        path = path or sandbox.cwd
        if await asyncio.to_thread(target.is_dir):
            target /= _called(path)
        await sandbox.files.download(path, target, user=user, progress=progress)


async def _is_directory(sandbox: Any, path: str, user: str | None) -> bool:
    if not await sandbox.files.exists(path, user=user):
        return False
    return bool((await sandbox.files.stat(path, user=user)).kind == "directory")


def _called(path: str) -> str:
    """What a copy is called in a directory; of DIR/. nothing."""
    name = posixpath.basename(path.rstrip("/"))
    return "" if name in (".", "..") else name


def _progress(quiet: bool) -> AbstractContextManager[Callable[..., None] | None]:
    return _none() if quiet or not output.console().is_terminal else _bar()


@contextmanager
def _none() -> Iterator[None]:
    yield None


@contextmanager
def _bar() -> Iterator[Callable[..., None]]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=output.console(), transient=True) as bar:
        task = bar.add_task("copy", total=None)

        def show(done: int, total: int | None = None) -> None:
            bar.update(task, completed=done, total=total)

        yield show
