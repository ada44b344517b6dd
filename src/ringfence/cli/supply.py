"""What the verbs of images share: the Engine's images, logins, labels, the lock file, progress."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ringfence.cli import output
from ringfence.cli.translate import translated

if TYPE_CHECKING:
    from ringfence.backends.docker.progress import Progress
    from ringfence.backends.docker.supply import Supply
    from ringfence.images import Lock
    from ringfence.images.credentials import Credentials

T = TypeVar("T")


def with_supply(work: "Callable[[Supply], Coroutine[Any, Any, T]]") -> T:
    """What `work` does with the images of the Docker Engine. Errors are told as verbs tell them."""
    from ringfence.backends.docker.supply import Supply

    async def go() -> T:
        async with Supply() as supply:
            return await work(supply)

    with translated("image"):
        return asyncio.run(go())


def login_of(username: str | None, *, password_stdin: bool) -> "Credentials | None":
    """The login of a command line; the password is the first line of standard input."""
    from ringfence.errors import InvalidSpecError
    from ringfence.images.credentials import Credentials

    if (username is not None) is not password_stdin:
        raise InvalidSpecError("--username and --password-stdin go together", op="pull")
    if username is None:
        return None
    return Credentials(username, sys.stdin.readline().rstrip("\r\n"))


def named(tag: str | None) -> Any:
    """The reference that a tag names."""
    from ringfence.images import Reference

    return None if tag is None else Reference.parse_familiar(tag)


def wanted_labels(labels: list[str] | None) -> dict[str, str | None] | None:
    """NAME and NAME=VALUE as the Engine is asked for them."""
    if not labels:
        return None
    pairs = (text.partition("=") for text in labels)
    return {name: text if equals else None for name, equals, text in pairs}


def read_lock(file: Path, *, missing_is_empty: bool = False) -> "Lock":
    """The lock file there. InvalidSpecError for one that is none; OSError."""
    from ringfence.errors import InvalidSpecError
    from ringfence.images import Lock

    try:
        return Lock.parse(file.read_text("utf-8"))
    except FileNotFoundError:
        if missing_is_empty:
            return Lock()
        raise
    except UnicodeDecodeError:
        raise InvalidSpecError(
            f"{file} is no lock file: it is not UTF-8; name another, or remove it and lock anew",
            op="image",
        ) from None


def teller() -> "Callable[[Progress], None]":
    """Shows a pull's layers or a build's steps on stderr: each new status once."""
    seen: set[tuple[str, str]] = set()

    def tell(step: "Progress") -> None:
        if step.output.strip():
            output.note(output.escape_text(step.output.rstrip()))
        elif step.status and (step.layer, step.status) not in seen:
            seen.add((step.layer, step.status))
            output.note(output.escape_text(f"{step.layer} {step.status}".strip()))

    return tell
