"""What a list shows of an entry. Of one that has ended it is read without validating its spec: a
week has tens of thousands of them, and nobody goes on with one."""

import functools
import json
import sqlite3
from typing import Any

import pydantic

from ringfence.ledger.entry import COLUMNS, Entry, from_row
from ringfence.ledger.salvage import read_workspace
from ringfence.spec import SandboxInfo, SandboxSpec, State

_KEPT = 1024
_TEXT = "typeof(spec) = 'text' AND json_valid(spec)"
PAST_COLUMNS = (
    f"{COLUMNS},"
    f" CASE WHEN {_TEXT} THEN json_extract(spec, '$.image', '$.labels', '$.detached') END AS shown,"
    f" CASE WHEN {_TEXT} THEN json_replace(spec, '$.image', 'image', '$.labels', json('{{}}'),"
    " '$.env', json('{}'), '$.repository.path', '/') END AS alike"
)
"""shown: of the spec what a list has. alike: the spec without what differs from sandbox to sandbox,
in which most agree. SQLite takes both out in a fraction of the time that Python reads a spec in."""


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
    """One that has ended, from a row of PAST_COLUMNS."""
    shown = None if row["shown"] is None else json.loads(row["shown"])
    if (
        shown is None
        or not _can_be_shown(*shown)
        or not _is_valid(row["alike"])
        or read_workspace(row["workspace"])[1] is not None
    ):
        entry = from_row(row)
        return info_of(entry, State.EXITED, entry.reason)
    image, labels, detached = shown
    return SandboxInfo(
        id=row["id"],
        backend=row["backend"],
        state=State.EXITED,
        image=image,
        image_digest=row["image_digest"],
        created=row["created"],
        ends=row["ends"],
        detached=bool(detached),
        labels=labels or {},
        transport=row["transport"] or None,
        reason=row["reason"],
    )


def _can_be_shown(image: Any, labels: Any, detached: Any) -> bool:
    """Whether this version may have written them. None: left out."""
    return (
        isinstance(image, str | None)
        and isinstance(labels, dict | None)
        and all(isinstance(value, str) for value in (labels or {}).values())
        and isinstance(detached, bool | None)
    )


@functools.lru_cache(maxsize=_KEPT)
def _is_valid(text: str) -> bool:
    """Whether this version reads a spec; else another one wrote it."""
    try:
        SandboxSpec.model_validate_json(text)
    except pydantic.ValidationError:
        return False
    return True
