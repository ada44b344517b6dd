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
        found = _look(path, digest, progress)
        if found is not None:
            yield _move(layout, path, found) if move and found.reason == "damaged" else found
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
    except OSError:
        return Damage(digest, "unreadable")
    return None if found == digest else Damage(digest, "damaged", found)


def _move(layout: Layout, path: Path, damage: Damage) -> Damage:
    with locks.exclusive(layout.lock):
        path.replace(layout.taken_out(damage.digest))
    return damage._replace(moved=True)
