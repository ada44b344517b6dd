"""Git's index, read and written without git.

Only the entries are carried. What else an index may hold (names of files that git does not track,
ids of what was merged or staged before) is the host's alone.
"""

import hashlib
import os
import struct
from collections.abc import Collection
from dataclasses import dataclass, field

_HEAD = struct.Struct(">4sII")
_EXTENDED, _SKIP = 0x4000, 0x4000
_NAME_LENGTH = 0xFFF
_STAGE = 0x3000
"""The bits of the flags that tell the sides of a merge apart."""
_STATUS_BYTES = 40
_MODE = slice(24, 28)
_LONGEST = 4096
"""Bytes of the longest path that a file can have."""
_NEEDED = b"link"
"""The extension without which the entries are not whole: of a split index."""
_DIRECTORY = (0o040000).to_bytes(4, "big")
_PADDING = tuple(bytes(8 - used) for used in range(8))
"""What fills an entry up, by the bytes that are used of its last eight."""


@dataclass(slots=True)
class Index:
    """What is tracked, by columns, which is the fastest there is for 50,000 files. id_bytes: of an
    object's id. paths: text with surrogateescape. entries: of each path the bytes that an index of
    version 2 or 3 has: what git remembers of the file, the object's id, flags, the path."""

    id_bytes: int
    paths: list[str] = field(default_factory=list)
    entries: list[bytes] = field(default_factory=list)

    @property
    def _fixed(self) -> int:
        """Bytes of an entry before its flags."""
        return _STATUS_BYTES + self.id_bytes

    def directories(self) -> list[tuple[str, str]]:
        """The entries of a sparse index that stand for all files of a directory: their paths, which
        end with "/", and the ids of their trees, in hex."""
        listed = zip(self.paths, self.entries, strict=True)
        return [
            (path, entry[_STATUS_BYTES : self._fixed].hex())
            for path, entry in listed
            if entry[_MODE] == _DIRECTORY
        ]

    def drop(self, paths: Collection[str]) -> None:
        """Let these not be tracked."""
        if not paths:
            return
        listed = zip(self.paths, self.entries, strict=True)
        self.entries = [entry for path, entry in listed if path not in paths]
        self.paths = [path for path in self.paths if path not in paths]

    def add(self, path: str, mode: int, name: str) -> None:
        """Let a file be tracked that is not looked at. name: the object's id, in hex."""
        self.paths.append(path)
        status = bytes(24) + mode.to_bytes(4, "big") + bytes(12)
        flags = (_EXTENDED, _SKIP)
        self.entries.append(_entry(status + bytes.fromhex(name), *flags, os.fsencode(path)))

    def skip(self, paths: Collection[str]) -> None:
        """Let these count as checked out whether they are there or not."""
        if not paths:
            return
        at = self._fixed
        for number, path in enumerate(self.paths):
            if path in paths:
                entry = self.entries[number]
                flags = _number(entry, at)
                more = _number(entry, at + 2) if flags & _EXTENDED else 0
                more |= _SKIP
                name = os.fsencode(path)
                self.entries[number] = _entry(entry[:at], flags | _EXTENDED, more, name)


def read(data: bytes, id_bytes: int) -> Index:
    """An index whose objects' ids have so many bytes.

    ValueError for what is no index, or one whose entries are not all in it (split).
    """
    try:
        signature, version, count = _HEAD.unpack_from(data)
        if signature != b"DIRC" or version not in (2, 3, 4) or count > len(data):
            raise ValueError("no index")
        names, entries, end = _entries(data, version, count, _STATUS_BYTES + id_bytes)
        while end + 8 <= len(data) - id_bytes:
            if data[end : end + 4] == _NEEDED:
                raise ValueError("the index is split")
            end += 8 + int.from_bytes(data[end + 4 : end + 8], "big")
    except (struct.error, IndexError):
        raise ValueError("the index ends too early") from None
    paths = os.fsdecode(b"\0".join(names)).split("\0") if names else []
    return Index(id_bytes, paths, entries)


def _entries(
    data: bytes, version: int, count: int, fixed: int
) -> tuple[list[bytes], list[bytes], int]:
    """Paths and entries, and where they end. fixed: bytes of an entry before its flags."""
    names, entries = [], []
    place, name = _HEAD.size, b""
    for _ in range(count):
        start = place
        place += fixed + 2
        flags = data[place - 2] << 8 | data[place - 1]
        more = 0
        if version > 2 and flags & _EXTENDED:
            more = _number(data, place)
            place += 2
        kept = b""
        if version == 4:
            dropped, place = _varint(data, place)
            if dropped > len(name):
                raise ValueError("a path in the index goes on from none")
            kept = name[: len(name) - dropped]
        end = data.find(b"\0", place)
        if end < 0:
            raise ValueError("the index ends too early")
        name = kept + data[place:end]
        if len(name) > _LONGEST:
            raise ValueError("a path in the index is too long")
        names.append(name)
        if version == 4 or flags & _EXTENDED or flags & _NAME_LENGTH != len(name):
            entries.append(_entry(data[start : start + fixed], flags, more, name))
        else:  # as it would be written
            entries.append(data[start:end] + _PADDING[end - start & 7])
        place = end + 1 if version == 4 else start + (end - start + 8) // 8 * 8
    return names, entries, place


def _entry(before: bytes, flags: int, more: int, name: bytes) -> bytes:
    """One of version 2 or 3. before: what stands before the flags."""
    flags = flags & ~_NAME_LENGTH | min(len(name), _NAME_LENGTH)
    extended = more.to_bytes(2, "big") if flags & _EXTENDED else b""
    body = before + flags.to_bytes(2, "big") + extended + name
    return body + _PADDING[len(body) & 7]


def _number(data: bytes, place: int) -> int:
    return data[place] << 8 | data[place + 1]


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


def write(tracked: Index) -> bytes:
    """The bytes of an index, in git's order."""
    at = _STATUS_BYTES + tracked.id_bytes
    flags = [entry[at] for entry in tracked.entries]
    names = os.fsencode("\0".join(tracked.paths)).split(b"\0")
    stages = [b"\0%c" % (flag & _STAGE >> 8) for flag in flags]
    keys = list(map(bytes.__add__, names, stages))
    listed = tracked.entries
    if keys != sorted(keys):
        listed = [listed[place] for place in sorted(range(len(keys)), key=keys.__getitem__)]
    version = 3 if any(flag & _EXTENDED >> 8 for flag in flags) else 2
    whole = b"".join([_HEAD.pack(b"DIRC", version, len(listed)), *listed])
    if tracked.id_bytes == 32:
        return whole + hashlib.sha256(whole).digest()
    return whole + hashlib.sha1(whole, usedforsecurity=False).digest()
