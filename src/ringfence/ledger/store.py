"""The ledger's file: SQLite in the state directory, safe between processes and after a crash."""

import contextlib
import copy
import functools
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from ringfence.backends.base import Record
from ringfence.backends.owner import Owner
from ringfence.backends.state import state_directory, wanted
from ringfence.errors import AlreadyExistsError, NotFoundError, StateError
from ringfence.ledger.connection import Kept
from ringfence.ledger.entry import (
    CLAIM_COLUMNS,
    COLUMNS,
    LABELLED,
    Claim,
    Entry,
    claim_of,
    due_of,
    from_row,
    spec_text,
    to_row,
)
from ringfence.ledger.failures import failure
from ringfence.spec import SandboxInfo, SandboxSpec

VERSION = 2
KEPT_SECONDS = 7 * 86400.0
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS sandboxes (
    id TEXT PRIMARY KEY, backend TEXT NOT NULL, endpoint TEXT NOT NULL, native TEXT NOT NULL,
    transport TEXT NOT NULL, spec TEXT NOT NULL, created REAL NOT NULL, ends REAL,
    marker BLOB NOT NULL, image_digest TEXT, owner_pid INTEGER, owner_start INTEGER,
    owner_boot TEXT, workspace TEXT, ended REAL, reason TEXT,
    due REAL, due_boot TEXT
);
CREATE INDEX IF NOT EXISTS live ON sandboxes (ended) WHERE ended IS NULL;
PRAGMA user_version = {VERSION};
"""


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make or upgrade the tables of a file that was just opened."""
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > VERSION:
        raise StateError(
            f"{path} was written by a newer Ringfence (version {found} of the ledger):"
            " upgrade this one",
            op="ledger",
        )
    if found == 1:
        _upgrade(connection)
    elif found < VERSION:
        connection.executescript(_SCHEMA)


def _upgrade(connection: sqlite3.Connection) -> None:
    """From version 1, which knew the ends by the clock that can be set only."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("PRAGMA user_version").fetchone()[0] == 1:
            connection.execute("ALTER TABLE sandboxes ADD COLUMN due REAL")
            connection.execute("ALTER TABLE sandboxes ADD COLUMN due_boot TEXT")
            connection.execute(f"PRAGMA user_version = {VERSION}")


class Ledger:
    """What this machine's Ringfence created: written before a sandbox is made, closed after it is
    gone, so that whoever comes later can finish what a killed process left.

    Every method is one short transaction (well under a millisecond) and may be called from any
    thread or process, a forked one too. The file stays open as long as the object is there.
    ResourceExhaustedError when the disk is full or the file cannot be written, StateError when it
    is damaged, or of a newer version. UnsupportedError from what takes labels and from `past` where
    SQLite has no JSON.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waits = True
        self._kept = Kept(path, _prepare)
        with self._transaction():
            pass

    @classmethod
    def default(cls) -> "Ledger":
        """The ledger of this user's state directory, one object for all who hold it. The directory
        is looked at once a second."""
        found = cls.at_hand()
        if found is None:
            key, found = _key(), _at(state_directory() / "ledger.sqlite")
            _recent.clear()
            _recent[key] = found
        return found

    @classmethod
    def at_hand(cls) -> "Ledger | None":
        """As `default` where it was looked at in this second, else None: that takes longer."""
        return _recent.get(_key())

    def hasty(self) -> "Ledger":
        """This one, of which no method waits for another thread, another process or the disk:
        where one had to it raises `Busy`, and has done nothing."""
        other = copy.copy(self)
        other._waits = False
        return other

    def add(
        self, record: Record, *, owner: Owner | None, workspace: Mapping[str, Any] | None = None
    ) -> None:
        """Write down a sandbox that is about to be made. AlreadyExistsError for a taken id."""
        marks = ", ".join("?" * len(COLUMNS.split(",")))
        try:
            with self._transaction() as connection:
                connection.execute(
                    f"INSERT INTO sandboxes ({COLUMNS}) VALUES ({marks})",  # noqa: S608 - constants
                    to_row(Entry(record, owner, workspace)),
                )
        except sqlite3.IntegrityError:
            raise AlreadyExistsError(
                f"a sandbox {record.id} is on record already", op="create", sandbox_id=record.id
            ) from None

    def created(self, record: Record) -> None:
        """The backend made it: keep what is needed to find it again. Nobody owns a detached one any
        more."""
        let_go = ", owner_pid = NULL" if record.spec.detached else ""
        self._change(
            record.id,
            "endpoint = ?, native = ?, transport = ?, marker = ?, image_digest = ?, created = ?,"
            f" ends = ?, due = ?, due_boot = ?{let_go}",
            record.endpoint,
            record.native,
            record.transport,
            record.marker,
            record.image_digest,
            record.created,
            record.ends,
            *due_of(record.ends),
        )

    def extend(self, sandbox_id: str, ends: float | None) -> None:
        """Let it end at `ends` (seconds since the epoch). StateError when it ended already, so
        that an extension and an expiry at the same moment have one winner."""
        self._change(sandbox_id, "ends = ?, due = ?, due_boot = ?", ends, *due_of(ends))

    def changed(
        self, sandbox_id: str, spec: SandboxSpec, workspace: Mapping[str, Any] | None = None
    ) -> None:
        """Its spec is another one now; workspace: and this is to be undone when it ends. StateError
        when it ended already."""
        more = None if workspace is None else json.dumps(dict(workspace))
        self._change(
            sandbox_id, "spec = ?, workspace = COALESCE(?, workspace)", spec_text(spec), more
        )

    def unfinished(self, sandbox_id: str, reason: str) -> None:
        """It is to be gone, for `reason`, and something of it could not be removed: whoever reaps
        next goes on with that. The first word stays. Nothing where it has ended."""
        now = time.time()
        with self._transaction() as connection:
            connection.execute(
                "UPDATE sandboxes SET reason = COALESCE(reason, ?), ends = ?, due = ?, due_boot = ?"
                " WHERE id = ? AND ended IS NULL",
                (reason, now, *due_of(now), sandbox_id),
            )

    def gone(self, entry: Entry) -> None:
        """Its instance was found gone, by somebody who only looked. Whoever reaps next ends one
        that has a workspace on this host, which is still to be undone."""
        close = self.end if entry.workspace is None else self.unfinished
        close(entry.record.id, entry.fate)

    def end(self, sandbox_id: str, reason: str) -> bool:
        """Say that it is gone, and why; the first word stays. Whether this was the first."""
        with self._transaction() as connection:
            done = connection.execute(
                "UPDATE sandboxes SET ended = ?, reason = COALESCE(reason, ?)"
                " WHERE id = ? AND ended IS NULL",
                (time.time(), reason, sandbox_id),
            )
            return done.rowcount == 1

    def get(self, name: str) -> Entry:
        """The entry of an id, or of its unambiguous beginning. NotFoundError names the remedy."""
        rows = self._beginning(name) if name and name.isascii() else []
        if not rows:
            raise NotFoundError(f"no sandbox {name!r}: see `ringfence ps --all`", op="open")
        if len(rows) > 1 and rows[0]["id"] != name:
            raise NotFoundError(f"{name!r} begins more than one id: write more of it", op="open")
        return from_row(rows[0])

    def _beginning(self, name: str) -> list[sqlite3.Row]:
        pattern = name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        with self._transaction() as connection:
            return connection.execute(
                f"SELECT {COLUMNS} FROM sandboxes WHERE id LIKE ? ESCAPE '\\'"  # noqa: S608
                " ORDER BY id <> ?, created DESC LIMIT 2",
                (pattern, name),
            ).fetchall()

    def live(self, labels: Mapping[str, str] | None = None) -> list[Entry]:
        """Everything that has not ended, the oldest first. labels: it has all of these."""
        return [from_row(row) for row in self._rows("ended IS NULL", labels)]

    def past(self, labels: Mapping[str, str] | None = None) -> list[SandboxInfo]:
        """What has ended, as a list shows it, the oldest first: a fraction of what `all` costs.
        labels: it has all of these."""
        from ringfence.ledger.listing import PAST_COLUMNS, past

        rows = self._rows("ended IS NOT NULL", labels, columns=PAST_COLUMNS)
        return [past(row) for row in rows]

    def claims(self) -> list[Claim]:
        """Who holds what has not ended, and until when: a fraction of what `live` costs."""
        with self._transaction() as connection:
            rows = connection.execute(
                f"SELECT {CLAIM_COLUMNS} FROM sandboxes WHERE ended IS NULL"  # noqa: S608
                " ORDER BY created"
            ).fetchall()
        return [claim_of(row) for row in rows]

    def all(self) -> list[Entry]:
        """Everything that is on record, the oldest first; ended ones are kept for a week."""
        return [from_row(row) for row in self._rows("TRUE")]

    def expired(self, now: float) -> list[Entry]:
        """The live ones whose time has come."""
        return [from_row(row) for row in self._rows("ended IS NULL AND ends <= ?", None, now)]

    def forget(self, before: float) -> int:
        """Drop ended entries older than `before` (seconds since the epoch); how many."""
        with self._transaction() as connection:
            return connection.execute("DELETE FROM sandboxes WHERE ended < ?", (before,)).rowcount

    def _rows(
        self,
        condition: str,
        labels: Mapping[str, str] | None = None,
        *values: Any,
        columns: str = COLUMNS,
    ) -> list[sqlite3.Row]:
        """The rows that are so, the oldest first."""
        if labels:
            condition, values = f"{condition} AND {LABELLED}", (*values, json.dumps(dict(labels)))
        with self._transaction() as connection:
            rows = connection.execute(
                f"SELECT {columns} FROM sandboxes WHERE {condition}",  # noqa: S608 - constants
                values,
            ).fetchall()
        # Not by SQLite, whose sorter writes what is as long as a spec to a file.
        return sorted(rows, key=itemgetter("created"))

    def _change(self, sandbox_id: str, assignments: str, *values: Any) -> None:
        with self._transaction() as connection:
            done = connection.execute(
                f"UPDATE sandboxes SET {assignments} WHERE id = ? AND ended IS NULL",  # noqa: S608
                (*values, sandbox_id),
            )
        if done.rowcount != 1:
            raise StateError(f"sandbox {sandbox_id} has ended", op="ledger", sandbox_id=sandbox_id)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._kept.pid != os.getpid():
            self._kept = self._kept.after_fork()
        try:
            with self._kept.transaction() if self._waits else self._kept.at_once() as connection:
                yield connection
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            raise failure(self.path, error) from None


@functools.lru_cache(maxsize=1)
def _at(path: Path) -> Ledger:
    return Ledger(path)


_recent: dict[tuple[Path, int, int], Ledger] = {}
"""The default one, by directory, user and second in which it was looked at."""


def _key() -> tuple[Path, int, int]:
    return wanted(), os.geteuid(), int(time.monotonic())
