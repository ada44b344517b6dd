"""The paths of all files that were in a commit, kept beside a layer for the next opening: in a long
history git needs many seconds to list them."""

import hashlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path

NAME = "commits"
_DIGEST_BYTES = 32


def write(place: Path, state: object, paths: Collection[str]) -> None:
    """Keep them in the directory `place`, which is ours. state: what decides which they are, with a
    repr that is its value. OSError when the disk is full."""
    data = os.fsencode("\0".join(paths))
    (place / NAME).write_bytes(_digest(state, data) + data)


def read(places: Iterable[Path], state: object) -> list[str] | None:
    """Those that were kept for that state in one of the directories, each of which may go at any
    moment; None where there are none, or no whole ones."""
    for place in places:
        try:
            kept = (place / NAME).read_bytes()
        except OSError:
            continue
        data = kept[_DIGEST_BYTES:]
        if kept[:_DIGEST_BYTES] == _digest(state, data):
            return os.fsdecode(data).split("\0") if data else []
    return None


def _digest(state: object, data: bytes) -> bytes:
    whole = hashlib.sha256(repr(state).encode("utf-8", "backslashreplace") + b"\0")
    whole.update(data)
    return whole.digest()
