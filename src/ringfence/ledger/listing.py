"""What a list shows of an entry. Of one that has ended it is read without validating its spec: a
week has tens of thousands of them, and nobody goes on with one."""

import functools
import json
import sqlite3
from typing import Any

import pydantic

from ringfence.ledger.entry import Entry, from_row
from ringfence.ledger.salvage import read_workspace
from ringfence.spec import SandboxInfo, SandboxSpec, State

_STANDING_IN: dict[str, Any] = {
    "image": "image",
    "env": {},
    "cwd": "/",
    "user": "user",
    "labels": {},
    "lifetime": 1,
    "idle_timeout": 1,
}
"""For what differs from sandbox to sandbox: in the rest most specs agree."""
_KEPT = 1024


def info_of(entry: Entry, state: State, reason: str | None) -> SandboxInfo:
    """An entry as a list shows it."""
    record = entry.record
    return SandboxInfo(
        id=record.id,
        backend=record.backend,
        state=state,
        image=record.spec.image,
        image_digest=record.image_digest,
        created=record.created,
        ends=record.ends,
        detached=record.spec.detached if entry.problem is None else entry.owner is None,
        labels=record.spec.labels,
        transport=record.transport or None,
        reason=reason,
        warning=entry.problem,
    )


def past(row: sqlite3.Row) -> SandboxInfo:
    """One that has ended, from a row of COLUMNS."""
    spec = _plain(row["spec"])
    if spec is None or read_workspace(row["workspace"])[1] is not None:
        entry = from_row(row)
        return info_of(entry, State.EXITED, entry.reason)
    return SandboxInfo(
        id=row["id"],
        backend=row["backend"],
        state=State.EXITED,
        image=spec.get("image"),
        image_digest=row["image_digest"],
        created=row["created"],
        ends=row["ends"],
        detached=spec.get("detached", False),
        labels=spec.get("labels", {}),
        transport=row["transport"] or None,
        reason=row["reason"],
    )


def _plain(text: str) -> dict[str, Any] | None:
    """The spec in a row, None where another version wrote it. It is validated once for all that
    agree but in texts and numbers of their own, of which only what is shown is looked at."""
    try:
        spec = json.loads(text)
    except ValueError:
        return None
    if not isinstance(spec, dict) or not _can_be_shown(spec):
        return None
    alike = {
        name: value if value is None else _STANDING_IN.get(name, value)
        for name, value in spec.items()
    }
    repository = spec.get("repository")
    if isinstance(repository, dict) and isinstance(repository.get("path"), str):
        alike["repository"] = {**repository, "path": "/"}
    return spec if _is_valid(json.dumps(alike)) else None


def _can_be_shown(spec: dict[str, Any]) -> bool:
    labels = spec.get("labels", {})
    return (
        isinstance(spec.get("image"), str | None)
        and isinstance(labels, dict)
        and all(isinstance(value, str) for value in labels.values())
    )


@functools.lru_cache(maxsize=_KEPT)
def _is_valid(text: str) -> bool:
    try:
        SandboxSpec.model_validate_json(text)
    except pydantic.ValidationError:
        return False
    return True
