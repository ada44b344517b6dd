"""The record of a staged tree, kept in a file so that another process can compare with it.

It is read and written by columns, which is the fastest there is for 50,000 entries; the
file is ours, in a directory where nobody else can write.
"""

import hashlib
import marshal
import os
from array import array
from collections.abc import Collection, Iterable, Sequence
from operator import itemgetter
from pathlib import Path

from ringfence.errors import StateError
from ringfence.workspace.entries import DIRECTORY, FILE, LINK, Entry

_FIRST = b"ringfence tree 3\n"
_VERSION = 2
"""Of marshal: the last one whose bytes depend on the values alone."""
_LENGTH = 8
_KINDS = (FILE, DIRECTORY, LINK)
_NUMBERS = range(2, len(Entry._fields))
_TYPES = dict.fromkeys(_NUMBERS, "Q") | {
    Entry._fields.index(name): "q" for name in ("mtime", "ctime")
}


def pack(paths: bytes, kinds: Iterable[str], columns: Sequence["array[int]"]) -> bytes:
    """A walk's result in one piece, by columns. columns: the numbers of `Entry` but the links.

    It is the same for a tree of hard links that is made from it and for one that would be made
    again: a file's ctime, which changes with each link to it, is given as 0, and the number of
    these does not count. Content cannot differ between two names of one inode.
    """
    named = bytes(map(_KINDS.index, kinds))
    numbers = [*(column.tobytes() for column in columns), bytes(_LENGTH * len(named))]
    return marshal.dumps((paths, named, numbers), _VERSION)


def _packed(entries: Sequence[Entry]) -> bytes:
    """With the ctime and the links of files too."""
    paths = os.fsencode("\0".join(entry.path for entry in entries))
    kinds = bytes(map(_KINDS.index, map(itemgetter(1), entries)))
    numbers = [array(_TYPES[column], map(itemgetter(column), entries)) for column in _NUMBERS]
    return marshal.dumps((paths, kinds, [column.tobytes() for column in numbers]), _VERSION)


def stamp(digest: str, more: object) -> str:
    """One digest (64 hex digits) over a walk's result, of which there is one already. more: what
    else decides, with a repr that is its value."""
    whole = hashlib.sha256(digest.encode())
    whole.update(repr(more).encode("utf-8", "backslashreplace"))
    return whole.hexdigest()


def write(path: Path, entries: Iterable[Entry], packed: bytes | None = None) -> None:
    """Write the entries, whole or not at all. packed: entries that stand where `entries` says
    nothing else. OSError when the disk is full."""
    data = _packed(list(entries))
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("wb") as file:
            file.write(_FIRST + len(data).to_bytes(_LENGTH, "big") + data)
            file.write(packed or _packed([]))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read(path: Path, only: Collection[str] | None = None) -> dict[str, Entry]:
    """The entries by path, or `only` those of some paths.

    StateError when the file is missing or is no such record.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StateError(
            f"the workspace's record {path} cannot be read: {error.strerror}", op="workspace"
        ) from None
    if not raw.startswith(_FIRST):
        raise StateError(f"{path} is not the record of a workspace", op="workspace")
    try:
        start = len(_FIRST) + _LENGTH
        end = start + int.from_bytes(raw[len(_FIRST) : start], "big")
        found = _entries(raw[end:], only)  # the packed ones first: the others stand over them
        return {**found, **_entries(raw[start:end], only)}
    except (EOFError, ValueError, TypeError, IndexError, AttributeError):
        raise StateError(f"the workspace's record {path} is damaged", op="workspace") from None


def _entries(data: bytes, only: Collection[str] | None) -> dict[str, Entry]:
    packed = marshal.loads(data)  # noqa: S302 - our own file, see the module
    paths, kinds, columns = os.fsdecode(packed[0]), packed[1], packed[2]
    if not kinds:
        return {}
    numbers = [array(_TYPES[column], columns[column - 2]) for column in _NUMBERS]
    names = [_KINDS[kind] for kind in kinds]
    listed = zip(paths.split("\0"), names, *numbers, strict=True)
    return {fields[0]: Entry(*fields) for fields in listed if only is None or fields[0] in only}
