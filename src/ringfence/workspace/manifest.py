"""The record of a staged tree, kept in a file so that another process can compare with it.

It is read and written in one piece by marshal, which is the fastest there is for 50,000 tuples; the
file is ours, in a directory where nobody else can write.
"""

import hashlib
import marshal
from collections.abc import Collection, Iterable
from pathlib import Path

from ringfence.errors import StateError
from ringfence.workspace.entries import FILE, Entry

_FIRST = b"ringfence tree 2\n"
_VERSION = 2
"""Of marshal: the last one whose bytes depend on the values alone."""


def write(path: Path, entries: Iterable[Entry]) -> None:
    """Write the entries, whole or not at all. OSError when the disk is full."""
    data = marshal.dumps([tuple(entry) for entry in entries], _VERSION)
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_bytes(_FIRST + data)
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
        listed = marshal.loads(raw[len(_FIRST) :])  # noqa: S302 - our own file, see the module
        return {fields[0]: Entry(*fields) for fields in listed if only is None or fields[0] in only}
    except (EOFError, ValueError, TypeError, IndexError):
        raise StateError(f"the workspace's record {path} is damaged", op="workspace") from None


def stamp(entries: Iterable[Entry], more: object) -> str:
    """One digest (64 hex digits) over a walk's result: it is the same when a tree of hard links
    made from one walk is what would be made from the other.

    more: what else decides, with a repr that is its value. A file counts with its inode and without
    its ctime, which changes with each link to it: content cannot differ between two names of one
    inode. All else counts with its ctime.
    """
    plain = [
        entry[:7] + entry[8:10] if entry[1] == FILE else tuple(entry[:10]) for entry in entries
    ]
    whole = hashlib.sha256(marshal.dumps(plain, _VERSION))
    whole.update(repr(more).encode("utf-8", "backslashreplace"))
    return whole.hexdigest()
