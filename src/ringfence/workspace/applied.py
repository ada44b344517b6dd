"""What of a workspace was written into the original already, so that it can be applied again.

The record is a file of ours in the workspace's directory: by path, what stood there afterwards.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ringfence.workspace.changes import MAX_BYTES, Change, Changes, Side, compare, kind_between
from ringfence.workspace.layers import Layers

RECORD = "applied.json"
_VERSION = 2
States = Mapping[str, Side | None]
"""What stands at each path; None for nothing."""


def read(directory: Path) -> States:
    """What was applied of the workspace `directory`."""
    data = _read(directory / RECORD)
    states = data["states"] if data.get("version") == _VERSION else data
    return {path: None if fields is None else Side(*fields) for path, fields in states.items()}


def read_application(record: Path) -> Mapping[str, Any] | None:
    """The application that such a record is of; None when there is none, or it is not whole: of a
    client that was killed while it wrote, before it touched the original."""
    try:
        data = _read(record)
    except ValueError:
        return None
    return data.get("application") if data.get("version") == _VERSION else None


def _read(record: Path) -> Mapping[str, Any]:
    try:
        data: Mapping[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return data


def write(directory: Path, states: States) -> None:
    """Let these have been applied of the workspace `directory`. OSError."""
    (directory / RECORD).write_text(text(states), encoding="utf-8")


def text(states: States, application: Mapping[str, Any] | None = None) -> str:
    """What such a record holds."""
    sides = {
        path: None if side is None else [side.kind, side.mode, side.size, side.digest]
        for path, side in states.items()
    }
    return json.dumps({"version": _VERSION, "states": sides, "application": application})


def forget(directory: Path) -> None:
    """The workspace is at its start again, and the original is not."""
    (directory / RECORD).unlink(missing_ok=True)


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
