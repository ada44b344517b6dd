"""The ledger's file: SQLite in the state directory, safe between processes and after a crash."""

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from ringfence.backends.base import Record
from ringfence.backends.state import state_directory
from ringfence.errors import (
    AlreadyExistsError,
    NotFoundError,
    ResourceExhaustedError,
    StateError,
)
from ringfence.ledger.entry import COLUMNS, Entry, from_row, to_row
from ringfence.ledger.owner import Owner

VERSION = 1
KEPT_SECONDS = 7 * 86400.0
_BUSY_SECONDS = 10.0
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS sandboxes (
    id TEXT PRIMARY KEY, backend TEXT NOT NULL, endpoint TEXT NOT NULL, native TEXT NOT NULL,
    transport TEXT NOT NULL, spec TEXT NOT NULL, created REAL NOT NULL, ends REAL,
    marker BLOB NOT NULL, image_digest TEXT, owner_pid INTEGER, owner_start INTEGER,
    owner_boot TEXT, workspace TEXT, ended REAL, reason TEXT
);
CREATE INDEX IF NOT EXISTS live ON sandboxes (ended) WHERE ended IS NULL;
PRAGMA user_version = {VERSION};
"""


class Ledger:
    """What this machine's Ringfence created: written before a sandbox is made, closed after it is
    gone, so that whoever comes later can finish what a killed process left.

    Every method is one short transaction (well under a millisecond) and may be called from any
    thread or process. ResourceExhaustedError when the disk is full or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._transaction() as connection:
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found > VERSION:
                raise StateError(
                    f"{path} was written by a newer Ringfence (version {found} of the ledger):"
                    " upgrade this one",
                    op="ledger",
                )
            if found < VERSION:
                connection.executescript(_SCHEMA)

    @classmethod
    def default(cls) -> Self:
        """The ledger of this user's state directory."""
        return cls(state_directory() / "ledger.sqlite")

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
        """The backend made it: keep what is needed to find it again."""
        self._change(
            record.id,
            "endpoint = ?, native = ?, transport = ?, marker = ?, image_digest = ?, created = ?,"
            " ends = ?",
            record.endpoint,
            record.native,
            record.transport,
            record.marker,
            record.image_digest,
            record.created,
            record.ends,
        )

    def extend(self, sandbox_id: str, ends: float | None) -> None:
        """Let it end at `ends` (seconds since the epoch). StateError when it ended already, so
        that an extension and an expiry at the same moment have one winner."""
        self._change(sandbox_id, "ends = ?", ends)

    def keep_workspace(self, sandbox_id: str, workspace: Mapping[str, Any] | None) -> None:
        """What must be undone on this host when the sandbox ends."""
        text = None if workspace is None else json.dumps(dict(workspace))
        self._change(sandbox_id, "workspace = ?", text)

    def end(self, sandbox_id: str, reason: str) -> bool:
        """Say that it is gone, and why; the first word stays. Whether this was the first."""
        with self._transaction() as connection:
            done = connection.execute(
                "UPDATE sandboxes SET ended = ?, reason = ? WHERE id = ? AND ended IS NULL",
                (time.time(), reason, sandbox_id),
            )
            return done.rowcount == 1

    def get(self, name: str) -> Entry:
        """The entry of an id, or of its unambiguous beginning. NotFoundError names the remedy."""
        pattern = name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        with self._transaction() as connection:
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM sandboxes WHERE id LIKE ? ESCAPE '\\'"  # noqa: S608
                " ORDER BY id <> ?, created DESC LIMIT 2",
                (pattern, name),
            ).fetchall()
        if not name or not rows:
            raise NotFoundError(f"no sandbox {name!r}: see `ringfence ps --all`", op="open")
        if len(rows) > 1 and rows[0]["id"] != name:
            raise NotFoundError(f"{name!r} begins more than one id: write more of it", op="open")
        return from_row(rows[0])

    def live(self) -> list[Entry]:
        """Everything that has not ended, the oldest first."""
        return self._select("ended IS NULL")

    def all(self) -> list[Entry]:
        """Everything that is on record, the oldest first; ended ones are kept for a week."""
        return self._select("TRUE")

    def expired(self, now: float) -> list[Entry]:
        """The live ones whose time has come."""
        return self._select("ended IS NULL AND ends <= ?", now)

    def forget(self, before: float) -> int:
        """Drop ended entries older than `before` (seconds since the epoch); how many."""
        with self._transaction() as connection:
            return connection.execute("DELETE FROM sandboxes WHERE ended < ?", (before,)).rowcount

    def _select(self, condition: str, *values: Any) -> list[Entry]:
        with self._transaction() as connection:
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM sandboxes WHERE {condition} ORDER BY created",  # noqa: S608
                values,
            ).fetchall()
        return [from_row(row) for row in rows]

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
        try:
            connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS)
        except sqlite3.OperationalError as error:
            raise self._full(error) from None
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA journal_mode = WAL")
            with connection:
                yield connection
        except sqlite3.OperationalError as error:
            raise self._full(error) from None
        finally:
            connection.close()

    def _full(self, error: sqlite3.Error) -> ResourceExhaustedError:
        return ResourceExhaustedError(
            f"the ledger {self.path} cannot be used: {error}; free space there or set"
            " RINGFENCE_STATE_DIR",
            op="ledger",
        )
