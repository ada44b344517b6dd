"""Looking for damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ringfence.digest.digest import Digest
from ringfence.digest.files import digest_mapped
from ringfence.digest.store import locks
from ringfence.digest.store.garbage import reachable
from ringfence.digest.store.layout import Layout


class Damage(NamedTuple):
    """reason: "damaged" (found: what the content is), "unreadable", "missing" (a root needs it) or
    "unverifiable" (its algorithm is not available here). moved: whether it was taken out."""

    digest: Digest
    reason: str
    found: Digest | None = None
    moved: bool = False


def scrub(
    layout: Layout, *, move: bool = False, progress: Callable[[int], None] | None = None
) -> Iterator[Damage]:
    """Read every blob and report those that are not what their name says.

    move: take them out, to .ringfence/damaged, so that they can be ingested again. progress: told
    the number of bytes of each step. Other processes may use the store meanwhile.
    """
    for digest, path in layout.found():
        before = _identity(path)
        found = _look(path, digest, progress)
        if found is not None and move and found.reason == "damaged":
            found = _move(layout, path, before, found)
        if found is not None:
            yield found
    for digest in sorted(reachable(layout, past_damage=True)):
        if not layout.blob(digest).exists():
            yield Damage(digest, "missing")


def _look(path: Path, digest: Digest, progress: Callable[[int], None] | None) -> Damage | None:
    if not digest.algorithm.available:
        return Damage(digest, "unverifiable")
    try:
        found = digest_mapped(path, digest.algorithm, progress=progress)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):  # a mapping says so of a file that has become shorter
        return Damage(digest, "unreadable")
    return None if found == digest else Damage(digest, "damaged", found)


def _move(layout: Layout, path: Path, before: object, damage: Damage) -> Damage | None:
    """Take it out; None when meanwhile it went, or came in again."""
    with locks.exclusive(layout.lock):
        if before is None or _identity(path) != before:
            return None
        path.replace(layout.taken_out(damage.digest))
    return damage._replace(moved=True)


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
