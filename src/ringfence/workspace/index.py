"""Git's index, read and written without git.

Only the entries are carried. What else an index may hold (names of files that git does not track,
ids of what was merged or staged before) is the host's alone.
"""

import hashlib
import os
import struct
from collections.abc import Iterable
from typing import NamedTuple

_HEAD = struct.Struct(">4sII")
_EXTENDED, _SKIP = 0x4000, 0x4000
_NAME_LENGTH = 0xFFF
STAGE = 0x3000
"""The bits of `flags` that tell the sides of a merge apart."""
_STATUS_BYTES = 40
_LONGEST = 4096
"""Bytes of the longest path that a file can have."""
_NEEDED = b"link"
"""The extension without which the entries are not whole: of a split index."""
_DIRECTORY = 0o040000


class Tracked(NamedTuple):
    """One entry. path: text with surrogateescape. status: what git remembers of the file, with its
    mode. name: the object's id. flags, more: as in the file, without the length of the path."""

    path: str
    status: bytes
    name: bytes
    flags: int
    more: int = 0

    @property
    def is_directory(self) -> bool:
        """Whether it stands for all files of a directory, whose path ends with "/", in a sparse
        index; name is then that of a tree."""
        return int.from_bytes(self.status[24:28], "big") == _DIRECTORY

    def skipped(self) -> "Tracked":
        """It, counted as checked out whether it is there or not."""
        return self._replace(flags=self.flags | _EXTENDED, more=self.more | _SKIP)


def read(data: bytes, id_bytes: int) -> list[Tracked]:
    """The entries of an index whose objects' ids have so many bytes.

    ValueError for what is no index, or one whose entries are not all in it (split).
    """
    try:
        signature, version, count = _HEAD.unpack_from(data)
        if signature != b"DIRC" or version not in (2, 3, 4) or count > len(data):
            raise ValueError("no index")
        entries, end = _entries(data, version, count, id_bytes)
        while end + 8 <= len(data) - id_bytes:
            if data[end : end + 4] == _NEEDED:
                raise ValueError("the index is split")
            end += 8 + int.from_bytes(data[end + 4 : end + 8], "big")
    except (struct.error, IndexError):
        raise ValueError("the index ends too early") from None
    return entries


def _entries(data: bytes, version: int, count: int, id_bytes: int) -> tuple[list[Tracked], int]:
    entries = []
    place, before = _HEAD.size, b""
    fixed = _STATUS_BYTES + id_bytes + 2
    for _ in range(count):
        start = place
        place += fixed
        flags = int.from_bytes(data[place - 2 : place], "big")
        more = 0
        if version > 2 and flags & _EXTENDED:
            more = int.from_bytes(data[place : place + 2], "big")
            place += 2
        kept = b""
        if version == 4:
            dropped, place = _varint(data, place)
            if dropped > len(before):
                raise ValueError("a path in the index goes on from none")
            kept = before[: len(before) - dropped]
        end = data.find(b"\0", place)
        if end < 0:
            raise ValueError("the index ends too early")
        before = kept + data[place:end]
        if len(before) > _LONGEST:
            raise ValueError("a path in the index is too long")
        place = end + 1 if version == 4 else start + (end - start + 8) // 8 * 8
        status = data[start : start + _STATUS_BYTES]
        name = data[start + _STATUS_BYTES : start + _STATUS_BYTES + id_bytes]
        entries.append(Tracked(os.fsdecode(before), status, name, flags & ~_NAME_LENGTH, more))
    return entries, place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number as git packs offsets, and where it ends. ValueError above _LONGEST."""
    byte = data[place]
    number = byte & 0x7F
    while byte & 0x80:
        place += 1
        byte = data[place]
        number = ((number + 1) << 7) | (byte & 0x7F)
        if number > _LONGEST:
            raise ValueError("a number in the index is too large")
    return number, place + 1


def write(entries: Iterable[Tracked], id_bytes: int) -> bytes:
    """The bytes of an index with these entries, which are in git's order."""
    listed = list(entries)
    version = 3 if any(entry.flags & _EXTENDED for entry in listed) else 2
    parts = [_HEAD.pack(b"DIRC", version, len(listed))]
    for path, status, name, flags, more in listed:
        text = os.fsencode(path)
        flags |= min(len(text), _NAME_LENGTH)  # noqa: PLW2901 - the length goes into the flags
        extended = more.to_bytes(2, "big") if flags & _EXTENDED else b""
        body = status + name + flags.to_bytes(2, "big") + extended + text
        parts.append(body + b"\0" * (8 - len(body) % 8))
    whole = b"".join(parts)
    if id_bytes == 32:
        return whole + hashlib.sha256(whole).digest()
    return whole + hashlib.sha1(whole, usedforsecurity=False).digest()


def fresh(path: str, mode: int, name: bytes) -> Tracked:
    """An entry of which no file is known."""
    status = bytes(24) + mode.to_bytes(4, "big") + bytes(12)
    return Tracked(path, status, name, 0)
