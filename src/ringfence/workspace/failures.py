"""Errors of the machine, as errors of ours that name the file."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ringfence.errors import (
    InvalidSpecError,
    NotFoundError,
    ResourceExhaustedError,
    SandboxError,
    StateError,
)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What there is no room for on this machine."""
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)


def shown(path: str | bytes | os.PathLike[str]) -> str:
    """A path as text that prints: newlines and bytes that are no UTF-8 are escaped."""
    text = os.fsdecode(path)
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain if plain.isprintable() else repr(plain)[1:-1]


def failed(
    error: OSError, path: str | os.PathLike[str], doing: str, *, writing: bool = False
) -> SandboxError:
    """The error to raise for what the kernel said of `path` while `doing` something. writing: where
    it was to be written, and not read.

    A full disk is ResourceExhaustedError, what may not be read or written InvalidSpecError, what
    went away StateError: the tree changed underneath.
    """
    message = f"{doing}: {shown(path)}: {error.strerror or error}"
    context = {"path": shown(path)}
    if error.errno in FULL:
        return ResourceExhaustedError(message, op="workspace", context=context)
    if error.errno in _DENIED:
        advice = "make the directory writable" if writing else "exclude it, or make it readable"
        return InvalidSpecError(f"{message}; {advice}", op="workspace", context=context)
    if error.errno in _GONE:
        return StateError(
            f"{message}: it changed while it was used", op="workspace", context=context
        )
    return StateError(message, op="workspace", context=context)


@contextmanager
def reading(path: str) -> Iterator[None]:
    """What the kernel says in this block is said of reading `path` of the workspace, also where
    something else is being written."""
    try:
        yield
    except OSError as error:
        raise failed(error, path, "reading the workspace") from None


def missing(path: str | os.PathLike[str]) -> NotFoundError:
    """There is nothing at `path`."""
    return NotFoundError(
        f"{shown(path)}: no such directory", op="workspace", context={"path": shown(path)}
    )
