"""What is still needed, and removing the rest."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.digest.descriptor import Descriptor
from ringfence.digest.digest import Digest
from ringfence.digest.errors import DigestError
from ringfence.digest.store import labels, locks
from ringfence.digest.store.errors import IngestBusy, StoreInvalid
from ringfence.digest.store.ingest import lock_of
from ringfence.digest.store.layout import Layout, digest_at, read_index, read_json

KEEP = "ringfence.keep"
"""The label of a blob that is a root: its text says who needs it."""
REFERENCE = "ringfence.ref."
"""Labels that begin so hold the digest of another blob, which is needed as long as this one."""
_LARGEST_DOCUMENT = 16 * 1024 * 1024
_WAYS = "put it in again, or take away the tag or label that needs it"
_LISTS = ("manifests", "layers", "blobs")
_SINGLE = ("config", "subject")


class Collected(NamedTuple):
    """What a collection removed, or would have. size: bytes of the blobs, and of damaged ones that
    `scrub` had taken out."""

    removed: tuple[Digest, ...]
    size: int
    ingests: int


def collect(
    layout: Layout, roots: Iterable[str], *, grace: float, stale: float, dry_run: bool
) -> Collected:
    """Remove blobs that no root needs and that are older than `grace` seconds; and ingests that
    nobody has written to for `stale` seconds.

    StoreInvalid, and nothing is removed, when a needed manifest cannot be read.
    """
    removed: list[Digest] = []
    size = 0
    newest = time.time() - grace
    with locks.exclusive(layout.composing), locks.exclusive(layout.lock):
        needed = reachable(layout, roots)
        for digest, path in layout.found():
            status = path.stat()
            if digest in needed or status.st_mtime > newest:
                continue
            removed.append(digest)
            size += status.st_size
            if not dry_run:
                path.unlink()
                layout.label(digest).unlink(missing_ok=True)
        size += _taken_out(layout, needed, dry_run)
    return Collected(tuple(removed), size, _ingests(layout, stale, dry_run))


def release(layout: Layout, digest: Digest, *, wait: bool = True) -> Collected:
    """Remove `digest`, which no name stands for any more, and all that only it needed, at once.

    Nothing is removed while something else needs it. What a damaged one needed stays for `collect`.
    StoreInvalid when another one that is needed is damaged. wait: for those who compose, or raise
    StoreBusy.
    """
    removed: list[Digest] = []
    size = 0
    with locks.exclusive(layout.composing, wait=wait), locks.exclusive(layout.lock):
        for each in sorted(closure(layout, [digest], past_damage=True) - reachable(layout)):
            path = layout.blob(each)
            if path.is_file():
                removed.append(each)
                size += path.stat().st_size
                path.unlink()
                layout.label(each).unlink(missing_ok=True)
    return Collected(tuple(removed), size, 0)


def reachable(
    layout: Layout, roots: Iterable[str] = (), *, past_damage: bool = False
) -> set[Digest]:
    """Every digest that the roots need, present or not: these and those the store has.

    past_damage: leave out what only damaged blobs could tell, in place of StoreInvalid.
    """
    named = [entry.digest for entry in tagged(layout)]
    return closure(layout, [*roots, *named, *_kept(layout)], past_damage=past_damage)


def tagged(layout: Layout) -> list[Descriptor]:
    """The entries of index.json. StoreInvalid."""
    try:
        return list(entries(read_index(layout.index)))
    except (DigestError, TypeError) as error:
        raise StoreInvalid(f"{layout.index} has an entry that cannot be read: {error}") from None


def closure(layout: Layout, roots: Iterable[str], *, past_damage: bool = False) -> set[Digest]:
    """Every digest that these need, themselves too, present or not. StoreInvalid."""
    waiting = [(Digest.parse(root, strict=False), True) for root in roots]
    needed: set[Digest] = set()
    read: set[Digest] = set()
    while waiting:
        digest, document = waiting.pop()
        labelled = digest not in needed
        needed.add(digest)
        try:
            if labelled:
                waiting += ((other, True) for other in _by_label(layout, digest))
            if document and digest not in read:
                read.add(digest)
                waiting += _references(layout, digest)
        except StoreInvalid:
            if not past_damage:
                raise
    return needed


def entries(document: Mapping[str, Any]) -> Iterator[Descriptor]:
    """The descriptors in an index or a manifest."""
    found = [entry for name in _LISTS for entry in document.get(name) or ()]
    found += [document[name] for name in _SINGLE if document.get(name)]
    for entry in found:
        yield Descriptor.from_dict(entry)


def _references(layout: Layout, digest: Digest) -> Iterator[tuple[Digest, bool]]:
    document = _document(layout, digest)
    try:
        found = list(entries(document))
    except (DigestError, TypeError) as error:
        raise StoreInvalid(f"{digest} has references that cannot be read: {error}") from None
    for entry in found:
        kind = entry.media_type
        yield entry.digest, "manifest" in kind or "index" in kind


def _document(layout: Layout, digest: Digest) -> dict[str, Any]:
    """A blob as JSON; {} for one that is absent or is not a manifest at all.

    StoreInvalid for a damaged one, also where `scrub` took it out: what it needs is not known.
    """
    path = layout.blob(digest)
    try:
        if path.stat().st_size > _LARGEST_DOCUMENT:
            return {}
        content = path.read_bytes()
    except FileNotFoundError:
        if layout.taken_out(digest).exists():
            raise StoreInvalid(f"{digest} was damaged and taken out: {_WAYS}") from None
        return {}
    if digest.algorithm.available and Digest.from_bytes(content, digest.algorithm) != digest:
        raise StoreInvalid(f"{digest} is damaged: {_WAYS}")
    if not content.lstrip().startswith(b"{"):
        return {}
    try:
        return read_json(path)
    except StoreInvalid:
        return {}


def _taken_out(layout: Layout, needed: set[Digest], dry_run: bool) -> int:
    """Remove damaged blobs that nothing needs or that came in again; their bytes."""
    size = 0
    for path in sorted(layout.damaged.iterdir()):
        digest = Digest(path.name)
        if digest.is_wellformed() and digest in needed and not layout.blob(digest).exists():
            continue
        size += path.stat().st_size
        if not dry_run:
            path.unlink()
    return size


def _kept(layout: Layout) -> Iterator[Digest]:
    for path in layout.labels.glob("*/*"):
        digest = digest_at(path)
        if digest is not None and KEEP in labels.of(layout, digest):
            yield digest


def _by_label(layout: Layout, digest: Digest) -> Iterator[Digest]:
    for name, text in labels.of(layout, digest).items():
        if name.startswith(REFERENCE):
            try:
                yield Digest.parse(text, strict=False)
            except DigestError:
                raise StoreInvalid(f"{digest}: its label {name} holds no digest") from None


def _ingests(layout: Layout, stale: float, dry_run: bool) -> int:
    before = time.time() - stale
    count = 0
    for directory in sorted(layout.ingests.iterdir()):
        if not directory.is_dir() or _touched(directory) > before:
            continue
        try:
            lock = locks.own(lock_of(directory))
        except IngestBusy:
            continue
        try:
            if _touched(directory) > before:
                continue
            count += 1
            if not dry_run:
                shutil.rmtree(directory, ignore_errors=True)
                lock_of(directory).unlink(missing_ok=True)
        finally:
            os.close(lock)
    return count


def _touched(directory: Path) -> float:
    """When an ingest was last written to; far in the future when it is gone."""
    try:
        return max(path.stat().st_mtime for path in (directory, *directory.iterdir()))
    except FileNotFoundError:
        return float("inf")
