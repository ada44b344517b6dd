"""What the kernel says of the names in some directories, as `ringfence-guest --list` writes it: ten
numbers of eight bytes for each name.

A regular file's ctime and its number of links change with each hard link to it: nothing is compared
by them. Of git's own directory nothing counts but what it is.
"""

import os
import struct
from array import array
from collections.abc import Iterable, Sequence
from itertools import compress, starmap
from operator import attrgetter
from stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISREG

from ringfence.workspace import manifest
from ringfence.workspace.entries import DIRECTORY, FILE, LINK, Entry, held

WORDS = 10
MODE, UID, GID, SIZE, MTIME, CTIME, DEVICE, INODE, LINKS, CHANGED = range(WORDS)
"""CHANGED: the ctime of what is no regular file."""
ROW_BYTES = 8 * WORDS
Facts = tuple[int, int, int, int, int, int, int, int, int]
facts_of = attrgetter("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ctime_ns",
                      "st_dev", "st_ino", "st_nlink")  # fmt: skip
"""Of what lstat said: the numbers of a row, but the last. For a walk a tuple is the fastest."""
_KINDS = {S_IFREG: FILE, S_IFDIR: DIRECTORY, S_IFLNK: LINK}
_SIGNED = (MTIME, CTIME)
_pack = struct.Struct("=QQQQqqQQQ8x").pack


def looked(
    listed: Sequence["os.DirEntry[str]"],
) -> tuple[list[str], list[Facts], bytes]:
    """The names in a directory, what lstat says of each, and the same as rows. OSError."""
    names = [entry.name for entry in listed]
    facts: list[Facts] = [facts_of(entry.stat(follow_symlinks=False)) for entry in listed]
    try:
        return names, facts, rows_of(names, facts)
    except struct.error:  # a time that a row does not hold
        facts = list(map(_held, facts))
        return names, facts, rows_of(names, facts)


def _held(facts: Facts) -> Facts:
    mode, uid, gid, size, mtime, ctime, device, inode, links = facts
    return mode, uid, gid, size, held(mtime), held(ctime), device, inode, links


def rows_of(names: Sequence[str], found: Sequence[Facts]) -> bytes:
    """The rows of some names, without CHANGED."""
    if ".git" in names:
        place = names.index(".git")
        mode, *_, device, inode, _ = found[place]
        git = (S_IFMT(mode), 0, 0, 0, 0, 0, device, inode, 0)
        found = [*found[:place], git, *found[place + 1 :]]
    return b"".join(starmap(_pack, found))


def words_of(rows: bytes | bytearray) -> "memoryview[int]":
    """Their numbers, without a copy."""
    return memoryview(rows).cast("Q")


def tell_changed(rows: bytearray) -> None:
    """Put CHANGED into the rows of a walk."""
    words = words_of(rows)
    both = zip(words[MODE::WORDS], words[CTIME::WORDS], strict=True)
    changed = array("Q", [0 if S_ISREG(mode) else when for mode, when in both])
    words[CHANGED::WORDS] = memoryview(changed)


def settled(rows: bytes | bytearray) -> bytearray:
    """Rows by what is compared of them."""
    copy = bytearray(rows)
    words = words_of(copy)
    words[CTIME::WORDS] = words[LINKS::WORDS] = words_of(bytes(len(copy) // WORDS))
    return copy


class Rows:
    """The rows of all that a walk looked at. visible: a byte for each, 1 where it goes in. paths:
    of those that go in, each ended by a zero byte but the last."""

    def __init__(self, rows: bytes | bytearray, visible: bytes | bytearray, paths: bytes) -> None:
        self.visible = visible
        self.encoded = paths
        self._words = words_of(rows)

    def column(self, word: int) -> "array[int]":
        """One number of each name that goes in."""
        numbers = array("Q", compress(self._words[word::WORDS], self.visible))
        return array("q", numbers.tobytes()) if word in _SIGNED else numbers

    @property
    def paths(self) -> list[str]:
        """Of all that goes in."""
        text = os.fsdecode(self.encoded)
        return text.split("\0") if text else []

    def kinds(self) -> list[str]:
        """Of all that goes in."""
        return [_KINDS[S_IFMT(mode)] for mode in self.column(MODE)]

    def entries(self) -> list[Entry]:
        """All that goes in."""
        modes: Iterable[int] = (mode & 0o7777 for mode in self.column(MODE))
        others = map(self.column, range(UID, CHANGED))
        listed = zip(self.paths, self.kinds(), modes, *others, strict=True)
        return [tuple.__new__(Entry, fields) for fields in listed]

    def packed(self) -> bytes:
        """All that goes in as one piece; see `manifest.pack`."""
        kinds, modes = self.kinds(), array("Q", [mode & 0o7777 for mode in self.column(MODE)])
        both = zip(kinds, self.column(CTIME), strict=True)
        changed = array("q", [0 if kind == FILE else when for kind, when in both])
        before, after = map(self.column, (UID, GID, SIZE, MTIME)), map(self.column, (DEVICE, INODE))
        return manifest.pack(self.encoded, kinds, [modes, *before, changed, *after])
