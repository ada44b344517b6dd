"""What of a workspace was written into the original already, so that it can be applied again.

The record is a file of ours in the workspace's directory: by path, what stood there afterwards.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ringfence.workspace.changes import Change, Changes, Side, compare, kind_between
from ringfence.workspace.failures import failed
from ringfence.workspace.layers import Layers
from ringfence.workspace.prepared import MAX_BYTES

_RECORD = "applied.json"
States = Mapping[str, Side | None]
"""What stands at each path; None for nothing."""


def read(directory: Path) -> States:
    """What was applied of the workspace `directory`."""
    try:
        text = (directory / _RECORD).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    return {
        path: None if fields is None else Side(*fields) for path, fields in json.loads(text).items()
    }


class Record:
    """What will stand in the original, written before the original is touched: a disk that is full
    is found out while nothing is applied. `keep` makes it the record, `drop` forgets it."""

    def __init__(self, directory: Path, states: States) -> None:
        """ResourceExhaustedError when it cannot be written."""
        self._path = directory / _RECORD
        self._beside = directory / f"{_RECORD}.new"
        try:
            self._beside.write_text(_text(states), encoding="utf-8")
        except OSError as error:
            self.drop()
            raise failed(
                error, self._beside, "no record, nothing applied: free space there and repeat it"
            ) from None

    def keep(self) -> None:
        """It stands there now. OSError."""
        self._beside.replace(self._path)

    def drop(self) -> None:
        """It does not stand there. Idempotent."""
        with suppress(OSError):
            self._beside.unlink()


def _text(states: States) -> str:
    data = {
        path: None if side is None else [side.kind, side.mode, side.size, side.digest]
        for path, side in states.items()
    }
    return json.dumps(data)


def forget(directory: Path) -> None:
    """The workspace is at its start again, and the original is not."""
    (directory / _RECORD).unlink(missing_ok=True)


def wanted(changes: Iterable[Change]) -> dict[str, Side | None]:
    """What must stand at each path once the changes are written."""
    listed = list(changes)
    states: dict[str, Side | None] = {change.old_path or change.path: None for change in listed}
    return states | {change.path: change.new for change in listed}


def remaining(changes: Changes, before: States, now: Layers) -> Changes:
    """What is left to do of `changes` where `before` was applied already: each path from what was
    applied there, also back to the start."""
    base = {c.old_path or c.path: c.old for c in changes if c.old is not None}
    states = wanted(changes)
    back = [path for path in before if path not in states]
    found = compare(Layers([]), now, back, max_bytes=MAX_BYTES)
    states |= dict.fromkeys(back) | {change.path: change.new for change in found}
    items = []
    for path in sorted(states):
        old, new = before.get(path, base.get(path)), states[path]
        if old != new:
            items.append(Change(path, kind_between(old, new), old, new))
    return Changes(tuple(items), changes.refused)
