"""One line of the ledger."""

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.backends.base import Record
from ringfence.backends.owner import Owner, boot_id
from ringfence.ledger.reasons import CLIENT_LOST, LIFETIME, LOST
from ringfence.ledger.salvage import read_spec, read_workspace
from ringfence.spec import SandboxSpec

COLUMNS = (
    "id, backend, endpoint, native, transport, spec, created, ends, marker, image_digest,"
    " owner_pid, owner_start, owner_boot, workspace, ended, reason, due, due_boot"
)
CLAIM_COLUMNS = "id, ends, due, due_boot, owner_pid, owner_start, owner_boot"
LABELLED = (
    "NOT EXISTS (SELECT 1 FROM json_each(?) AS wanted WHERE NOT EXISTS (SELECT 1 FROM"
    " json_each(CASE WHEN typeof(spec) = 'text' AND json_valid(spec) THEN spec ELSE '{}' END,"
    " '$.labels') AS label"
    " WHERE label.key = wanted.key AND label.atom = wanted.atom))"
)
"""Whether a row's spec has all labels of a JSON object."""

NEAR_SECONDS = 2.0
"""The guest's clock and its host's may differ by this much over a lifetime."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose a live sandbox is and when it ends: the part of its entry that a sweep reads every
    second. The fields are those of `Entry` and its record."""

    id: str
    owner: Owner | None
    ends: float | None
    due: float | None
    due_boot: str | None

    def expired(self, now: float | None = None, *, early: float = 0.0) -> bool:
        """Whether its lifetime is over, or is in `early` seconds. now: seconds since the epoch;
        None asks the clock since boot, so that a clock that is set ends nothing early and keeps
        nothing."""
        if self.ends is None:
            return False
        if now is None and self.due is not None and self.due_boot == boot_id():
            return self.due <= time.clock_gettime(time.CLOCK_BOOTTIME) + early
        return self.ends <= (time.time() if now is None else now) + early


@dataclass(frozen=True, slots=True)
class Entry:
    """A sandbox as the ledger knows it.

    record.native is "" while the backend is still making it. owner: the process whose end ends
    it, None for a detached one that was made. workspace: what must be undone on this host when it
    ends. ended: seconds since the epoch, None while it lives; reason: how and why it ended, or is
    to. due: its end on the clock of the boot `due_boot`, which nobody sets. problem: what of it
    cannot be read, since another version of Ringfence wrote it: its record's spec is not all of it.
    """

    record: Record
    owner: Owner | None = None
    workspace: Mapping[str, Any] | None = None
    ended: float | None = None
    reason: str | None = None
    due: float | None = None
    due_boot: str | None = None
    problem: str | None = None

    @property
    def claim(self) -> Claim:
        """Whose it is and when it ends."""
        return Claim(self.record.id, self.owner, self.record.ends, self.due, self.due_boot)

    def expired(self, now: float | None = None) -> bool:
        """Whether its lifetime is over, as `Claim.expired` has it."""
        return self.claim.expired(now)

    @property
    def fate(self) -> str:
        """Why it is gone when nobody has said so: it ended itself at its time, or with the process
        that held it, or was lost."""
        if self.reason is not None:
            return self.reason
        if self.claim.expired(early=NEAR_SECONDS):
            return LIFETIME
        return CLIENT_LOST if self.owner is not None and not self.owner.alive() else LOST

    @property
    def detached(self) -> bool:
        """Whether no process holds it; what cannot be read of its spec need not say so."""
        return self.record.spec.detached if self.problem is None else self.owner is None

    @property
    def live(self) -> bool:
        """Whether nobody has said that it ended."""
        return self.ended is None


def due_of(ends: float | None) -> tuple[float | None, str | None]:
    """`due` and `due_boot` of an end in seconds since the epoch, as both clocks are now."""
    if ends is None:
        return None, None
    return time.clock_gettime(time.CLOCK_BOOTTIME) + ends - time.time(), boot_id()


def spec_text(spec: SandboxSpec) -> str:
    """A spec as it is kept."""
    return spec.model_dump_json(exclude_unset=True)


def to_row(entry: Entry) -> tuple[Any, ...]:
    """The values of COLUMNS."""
    record, owner = entry.record, entry.owner
    return (
        record.id,
        record.backend,
        record.endpoint,
        record.native,
        record.transport,
        spec_text(record.spec),
        record.created,
        record.ends,
        record.marker,
        record.image_digest,
        owner.pid if owner else None,
        owner.start if owner else None,
        owner.boot if owner else None,
        None if entry.workspace is None else json.dumps(dict(entry.workspace)),
        entry.ended,
        entry.reason,
        *due_of(record.ends),
    )


def claim_of(row: sqlite3.Row) -> Claim:
    """The claim in a row that has CLAIM_COLUMNS."""
    return Claim(row["id"], _owner(row), row["ends"], row["due"], row["due_boot"])


def _owner(row: sqlite3.Row) -> Owner | None:
    pid = row["owner_pid"]
    return Owner(pid, row["owner_start"], row["owner_boot"]) if pid else None


def from_row(row: sqlite3.Row) -> Entry:
    """The entry that `to_row` wrote, of whatever version; what it cannot read is its `problem`."""
    spec, unread = read_spec(row["spec"])
    workspace, unread_too = read_workspace(row["workspace"])
    record = Record(
        id=row["id"],
        backend=row["backend"],
        endpoint=row["endpoint"],
        native=row["native"],
        transport=row["transport"],
        spec=spec,
        created=row["created"],
        ends=row["ends"],
        marker=row["marker"],
        image_digest=row["image_digest"],
    )
    return Entry(
        record,
        _owner(row),
        workspace,
        row["ended"],
        row["reason"],
        row["due"],
        row["due_boot"],
        unread or unread_too,
    )
