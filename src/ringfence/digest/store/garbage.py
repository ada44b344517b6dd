"""What is still needed, and removing the rest."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ringfence.digest.descriptor import Descriptor
from ringfence.digest.digest import Digest
from ringfence.digest.errors import DigestError
from ringfence.digest.store import labels, leftovers, locks
from ringfence.digest.store.errors import StoreInvalid
from ringfence.digest.store.layout import Layout, digest_at, parsed, read_index

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
        if not dry_run:
            leftovers.sweep(layout, needed, stale)
    return Collected(tuple(removed), size, leftovers.ingests(layout, stale, dry_run))


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
    return closure(layout, [*roots, *_kept(layout)], tagged(layout), past_damage=past_damage)


def tagged(layout: Layout) -> list[Descriptor]:
    """The entries of index.json. StoreInvalid."""
    try:
        return list(entries(read_index(layout.index)))
    except (DigestError, TypeError) as error:
        raise StoreInvalid(f"{layout.index} has an entry that cannot be read: {error}") from None


def closure(
    layout: Layout,
    roots: Iterable[str],
    named: Iterable[Descriptor] = (),
    *,
    past_damage: bool = False,
) -> set[Digest]:
    """Every digest that these need, themselves too, present or not. StoreInvalid.

    named: roots of which it is known what they are. Of others, and of what those need, that is told
    by what is in them: a kept file may be a stranger's.
    """
    waiting = [(Digest.parse(root, strict=False), True, False) for root in roots]
    waiting += ((entry.digest, True, _is_manifest(entry)) for entry in named)
    needed: set[Digest] = set()
    read: set[tuple[Digest, bool]] = set()
    while waiting:
        digest, document, certain = waiting.pop()
        labelled = digest not in needed
        needed.add(digest)
        try:
            if labelled:
                waiting += ((other, True, False) for other in _by_label(layout, digest))
            if document and (digest, certain) not in read:
                read.add((digest, certain))
                waiting += (
                    (entry.digest, _is_manifest(entry), certain and _is_manifest(entry))
                    for entry in _references(layout, digest, certain)
                )
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


def _is_manifest(entry: Descriptor) -> bool:
    return "manifest" in entry.media_type or "index" in entry.media_type


def _references(layout: Layout, digest: Digest, certain: bool) -> list[Descriptor]:
    """What a blob needs. certain: it is a manifest; else any JSON may have a field "config"."""
    document = _document(layout, digest)
    try:
        return list(entries(document))
    except (DigestError, TypeError) as error:
        if not certain and digest.algorithm.available:
            return []
        raise StoreInvalid(f"{digest} has references that cannot be read: {error}") from None


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
        return parsed(content, digest)
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
