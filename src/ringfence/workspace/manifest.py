"""The record of a staged tree, kept in a file so that another process can compare with it."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from ringfence.errors import StateError
from ringfence.workspace.entries import Entry

_FIRST = b"ringfence tree 1\n"


def write(path: Path, entries: Iterable[Entry]) -> None:
    """Write the entries, whole or not at all. OSError when the disk is full."""
    pieces = []
    for entry in entries:
        fields = " ".join(map(str, entry[1:]))
        pieces.append(f"{fields}\0{entry.path}\0")
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_bytes(_FIRST + os.fsencode("".join(pieces)))
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
    parts = os.fsdecode(raw[len(_FIRST) :]).split("\0")
    found: dict[str, Entry] = {}
    for fields, name in zip(parts[0:-1:2], parts[1::2], strict=True):
        if only is not None and name not in only:
            continue
        kind, *numbers = fields.split(" ")
        found[name] = Entry(name, kind, *map(int, numbers))
    return found
