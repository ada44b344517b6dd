"""What a list shows of an entry. Of one that has ended it is read without validating its spec: a
week has tens of thousands of them, and nobody goes on with one."""

import functools
import json
import re
import sqlite3
from typing import Any

import pydantic

from ringfence.ledger.entry import COLUMNS, Entry, from_row
from ringfence.ledger.salvage import read_workspace
from ringfence.spec import SandboxInfo, SandboxSpec, State
from ringfence.spec.mount import check_path
from ringfence.spec.sandbox import check_env, check_image, check_labels

_KEPT = 1024
_TEXT = "typeof(spec) = 'text' AND json_valid(spec)"
_PLAIN_ENV_BYTES = 32 * 1024
_PLAIN_ENV = re.compile(
    r'\{(?:"[A-Za-z_][A-Za-z0-9_]*":"[^"\\]*"(?:,"[A-Za-z_][A-Za-z0-9_]*":"[^"\\]*")*)?\}'
)
"""Variables without a doubt, as SQLite writes them; of which there may be many."""
PAST_COLUMNS = (
    f"{COLUMNS},"
    f" CASE WHEN {_TEXT} THEN json_extract(spec, '$.detached', '$.image', '$.labels',"
    " '$.repository.path') END AS differing,"
    f" CASE WHEN {_TEXT} THEN json_quote(json_extract(spec, '$.env')) END AS env,"
    f" CASE WHEN {_TEXT} THEN CASE WHEN 'null' IN (json_type(spec, '$.labels'),"
    " json_type(spec, '$.env'), json_type(spec, '$.repository.path')) THEN spec ELSE"
    " json_replace(spec, '$.image', 'image', '$.labels', json('{}'), '$.env', json('{}'),"
    " '$.repository.path', '/') END END AS alike"
)
"""differing, env: what of the spec differs from sandbox to sandbox, and whether it is detached.
alike: the spec without that, in which most agree; where a null stands for it, which no version
writes, as it is. SQLite takes them out in a fraction of the time that Python reads a spec in."""


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
        detached=entry.detached,
        labels=record.spec.labels,
        transport=record.transport or None,
        reason=reason,
        warning=entry.problem,
    )


def past(row: sqlite3.Row) -> SandboxInfo:
    """One that has ended, from a row of PAST_COLUMNS."""
    differing = None if row["differing"] is None else json.loads(row["differing"])
    if (
        differing is None
        or not _may_be_ours(*differing)
        or not _is_env(row["env"])
        or not _is_valid(row["alike"])
        or read_workspace(row["workspace"])[1] is not None
    ):
        entry = from_row(row)
        return info_of(entry, State.EXITED, entry.reason)
    detached, image, labels = differing[:3]
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


def _may_be_ours(detached: Any, image: Any, labels: Any, path: Any) -> bool:
    """Whether this version may have written them. None: left out."""
    if not (
        isinstance(detached, bool | None)
        and isinstance(image, str | None)
        and _are_texts(labels)
        and isinstance(path, str | None)
    ):
        return False
    try:
        check_labels(labels or {})
        if image is not None:
            check_image(image)
        if path is not None:
            check_path(path)
    except ValueError:
        return False
    return True


def _is_env(text: str) -> bool:
    """Whether this version may have written these variables, "null" for none."""
    if len(text) <= _PLAIN_ENV_BYTES and _PLAIN_ENV.fullmatch(text):
        return True
    env = json.loads(text)
    if not _are_texts(env):
        return False
    try:
        check_env(env or {})
    except ValueError:
        return False
    return True


def _are_texts(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    )


@functools.lru_cache(maxsize=_KEPT)
def _is_valid(text: str) -> bool:
    """Whether this version reads a spec; else another one wrote it."""
    try:
        SandboxSpec.model_validate_json(text)
    except pydantic.ValidationError:
        return False
    return True
