"""Whether an original is still as the changes to it need it."""

import os
import stat

from ringfence.errors import StateError
from ringfence.workspace.beneath import above, lstat, open_file, read_link
from ringfence.workspace.changes import Changes, Side, digest_of, hashed
from ringfence.workspace.entries import FILE, LINK, kind_of
from ringfence.workspace.failures import failed, shown


def check(changes: Changes, root: int, *, modes: bool) -> None:
    """StateError for a path that is not as it was. modes: whether the sandbox started with those of
    the original."""
    moving = {change.old_path for change in changes}
    moving |= {change.path for change in changes if change.kind == "deleted"}
    for change in changes:
        before = change.old_path or change.path
        if change.old is not None:
            _check_same(root, before, change.old, mode=modes)
        fresh = change.kind in ("added", "renamed")
        there = lstat(root, change.path) if fresh else None
        if there is not None and not stat.S_ISDIR(there.st_mode):
            raise moved(change.path, "it exists in the repository, where the sandbox saw nothing")
        _check_parents(root, change.path, moving)


def _check_same(root: int, path: str, old: Side, *, mode: bool) -> None:
    if not is_same(root, path, old):
        raise moved(path, "it is not what the sandbox started from any more")
    status = lstat(root, path)
    if mode and status is not None and status.st_mode & 0o777 != old.mode:
        raise moved(path, "its mode is not the one that the sandbox started from any more")


def _check_parents(root: int, path: str, moving: set[str | None]) -> None:
    for place in above(path):
        status = lstat(root, place)
        if status is not None and not stat.S_ISDIR(status.st_mode) and place not in moving:
            raise moved(place, "it is no directory")


def is_same(root: int, path: str, side: Side) -> bool:
    """Whether what is at `path` below `root` has the kind and the content of `side`."""
    return _found(root, path) == (side.kind, side.digest)


def _found(root: int, path: str) -> tuple[str, str] | None:
    status = lstat(root, path)
    if status is None:
        return None
    kind = kind_of(status.st_mode)
    try:
        if kind == LINK:
            return LINK, digest_of(os.fsencode(read_link(root, path)))
        if kind == FILE:
            return FILE, hashed(open_file(root, path), status.st_size)[1]
    except OSError as error:
        raise failed(error, path, "comparing with the repository") from None
    return None


def moved(path: str, why: str) -> StateError:
    """The error for a path that is not as it was."""
    return StateError(
        f"the changes no longer apply: {shown(path)}: {why}",
        op="workspace.apply",
        context={"path": shown(path)},
    )
