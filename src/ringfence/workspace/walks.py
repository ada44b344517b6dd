"""Walks that are kept, so that the next one need only find that nothing differs.

Of each of the last trees that were walked, with the rules of the time, there is a file: all that
the walk looked at (`Seen`), and what it chose. To use it all of that is looked at again. Where the
names, kinds and links are the same, and files of patterns hold the same, the choice is, too; what
else differs (sizes, times, modes, owners, inodes) is taken from the new look.
"""

import hashlib
import marshal
import os
import secrets
import sys
import time
import zlib
from contextlib import suppress
from itertools import compress
from pathlib import Path
from stat import S_IFMT, S_ISLNK, S_ISREG
from typing import NamedTuple

import pathspec

from ringfence.spec import Repository
from ringfence.workspace import entries, patterns, rules, seen, select
from ringfence.workspace.listing import list_again
from ringfence.workspace.rows import (
    DEVICE,
    INODE,
    LINKS,
    MODE,
    ROW_BYTES,
    WORDS,
    Rows,
    settled,
    tell_changed,
    words_of,
)
from ringfence.workspace.secrets import SECRETS
from ringfence.workspace.seen import digest_of, patterns_in
from ringfence.workspace.selection import Selection
from ringfence.workspace.stopping import Check, always

STORE = ".walks"
FEW = 2000
"""Names in a tree that is walked as fast without."""
_FIRST = b"ringfence walk 2\n"
_VERSION = 4
_SUM_BYTES = 4
_KEPT = 4
_KEPT_SECONDS = 24 * 3600.0
_WRITING_SECONDS = 60.0
"""A file that is longer without a byte more is of a client that was killed."""


class _Kept(NamedTuple):
    """directories to ignored: those of `Seen`, in bytes. digest, paths: of what was chosen.
    searched: whether no hidden directory is left that may hold another name of a visible file."""

    directories: bytes
    names: bytes
    rows: bytes | bytearray
    visible: bytes | bytearray
    ignored: dict[str, bytes | None]
    paths: bytes
    hidden: dict[str, str]
    special: dict[str, str]
    git: list[str]
    searched: bool
    digest: str


def store_of(directory: Path) -> Path:
    """The store beside the workspace `directory`."""
    return directory.parent / STORE


def choose(
    root: int,
    repository: Repository,
    store: Path,
    *,
    visit: select.Visit | None = None,
    check: Check = always,
    keeps: bool = True,
) -> Selection:
    """What `select.select` chooses, by the walk that is kept in `store` where that still holds.

    Then `visit` is told nothing. keeps: whether a new walk is kept. check: what it raises ends it.
    Errors: those of `select`. It blocks.
    """
    select.check_subpath(root, repository)
    place = store / _name(root, repository)
    if (selection := _recalled(place, root, check, keeps=keeps)) is not None:
        return selection
    walk = select.Walk(root, rules.Rules(repository), visit)
    selection = walk.run()
    if keeps and walk.seen.told and len(walk.seen.visible) >= FEW:
        _write(place, _kept(walk, selection))
    return selection


def expire(store: Path) -> None:
    """Remove what is not kept any more: all but the last few, what is older than a day, and what
    nobody goes on writing."""
    with suppress(OSError):
        found = sorted(((path.stat().st_mtime, path) for path in store.iterdir()), reverse=True)
        now, kept = time.time(), 0
        for used, path in found:
            written = not path.suffix
            kept += written
            oldest = now - (_KEPT_SECONDS if written else _WRITING_SECONDS)
            if used < oldest or (written and kept > _KEPT):
                path.unlink(missing_ok=True)


def _kept(walk: select.Walk, chosen: Selection) -> _Kept:
    told = walk.seen
    tell_changed(told.rows)
    return _Kept(
        directories=os.fsencode("\0".join(told.directories)),
        names=os.fsencode("".join(told.names)),
        rows=settled(told.rows),
        visible=told.visible,
        ignored=told.ignored,
        paths=chosen.rows.encoded,
        hidden=chosen.hidden,
        special=chosen.special,
        git=chosen.git,
        searched=not walk.later,
        digest=chosen.digest,
    )


def _code() -> list[object]:
    """The code that decides, as this process has it: the files may be another version's later."""
    facts: list[object] = [sys.version, sys.getfilesystemencoding(), pathspec.__version__]
    for module in (entries, patterns, rules, seen, select):
        try:
            facts.append(hashlib.sha256(Path(module.__file__ or "").read_bytes()).hexdigest())
        except OSError:  # no file of its own: no other process can tell that it has the same
            facts.append(secrets.token_hex(16))
    return facts


_CODE = _code()


def _name(root: int, repository: Repository) -> str:
    """Of the file for a tree and these rules, as our code reads them."""
    status = os.fstat(root)
    facts: list[object] = [status.st_dev, status.st_ino, os.geteuid(), _CODE]
    facts += [repository.include, repository.exclude, repository.gitignore, repository.subpath]
    facts += [repository.secrets_excluded, SECRETS]
    return hashlib.sha256(repr(facts).encode("utf-8", "backslashreplace")).hexdigest()


def _write(place: Path, kept: _Kept) -> None:
    """Keep it, whole or not at all; not at all on a full disk."""
    data = marshal.dumps(tuple(kept), _VERSION)
    beside = place.with_name(f"{place.name}.{secrets.token_hex(8)}")
    with suppress(OSError):
        place.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            with beside.open("wb") as file:
                file.write(_FIRST + _sum(data))
                file.write(data)
            beside.replace(place)
        finally:
            beside.unlink(missing_ok=True)
        expire(place.parent)


def _sum(data: bytes | memoryview) -> bytes:
    """By which a file that was cut short or overwritten is known; nobody else writes there."""
    return zlib.crc32(data).to_bytes(_SUM_BYTES, "big")


def _read(place: Path) -> _Kept | None:
    """What is kept there; None when that is nothing, or damaged."""
    try:
        raw = memoryview(place.read_bytes())
    except OSError:
        return None
    start = len(_FIRST) + _SUM_BYTES
    if raw[:start] != _FIRST + _sum(raw[start:]):
        return None
    try:
        return _Kept(*marshal.loads(raw[start:]))  # noqa: S302 - our own file, whole
    except (EOFError, ValueError, TypeError):
        return None


def _recalled(place: Path, root: int, check: Check, *, keeps: bool) -> Selection | None:
    """The choice that is kept, when all that decided is as it was."""
    kept = _read(place)
    if kept is None:
        return None
    found = list_again(root, kept.directories.split(b"\0"), len(kept.visible), check)
    if found is None or found.names != kept.names or len(found.rows) != len(kept.rows):
        return None
    if any(digest_of(patterns_in(root, path)) != was for path, was in kept.ignored.items()):
        return None
    rows = settled(found.rows)
    same = rows == kept.rows
    if not _decides(kept, rows, words_of(found.rows)):
        return None
    selection = Selection(
        Rows(found.rows, kept.visible, kept.paths), kept.hidden, kept.special, kept.git,
        digest=kept.digest if same else None,
    )  # fmt: skip
    if keeps and same:
        with suppress(OSError):
            os.utime(place)
    elif keeps:
        _write(place, kept._replace(rows=rows, digest=selection.digest))
    return selection


def _decides(kept: _Kept, rows: bytearray, now: "memoryview[int]") -> bool:
    """Whether what was chosen would be chosen of these rows. now: with links and ctime."""
    if _linked(kept, now) and (not kept.searched or _shares(kept, now)):
        return False
    if rows == kept.rows:
        return True
    if select.ANOTHER_NAME in kept.hidden.values():  # it may be another file now
        return False
    before = words_of(kept.rows)[MODE::WORDS]
    for number, (mode, was) in enumerate(zip(now[MODE::WORDS], before, strict=True)):
        here = slice(number * ROW_BYTES, (number + 1) * ROW_BYTES)
        if S_IFMT(mode) != S_IFMT(was) or (S_ISLNK(mode) and rows[here] != kept.rows[here]):
            return False
    return True


def _linked(kept: _Kept, now: "memoryview[int]") -> bool:
    """Whether a visible file has another name."""
    both = zip(now[MODE::WORDS], now[LINKS::WORDS], strict=True)
    return any(links > 1 and S_ISREG(mode) for mode, links in compress(both, kept.visible))


def _shares(kept: _Kept, now: "memoryview[int]") -> bool:
    """Whether a visible file is a hidden one: a tree that changed in the middle of a look may have
    been kept so."""
    hidden = bytes(not one for one in kept.visible)
    inodes = now[INODE::WORDS]
    if set(compress(inodes, hidden)).isdisjoint(compress(inodes, kept.visible)):
        return False
    files = list(zip(now[DEVICE::WORDS], inodes, strict=True))
    return not set(compress(files, hidden)).isdisjoint(compress(files, kept.visible))
