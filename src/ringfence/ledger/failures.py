"""What SQLite's errors mean to who uses a ledger."""

import contextlib
import sqlite3
from pathlib import Path

from ringfence.errors import ResourceExhaustedError, SandboxError, StateError, UnsupportedError

_BUSY = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_BUSY_RECOVERY,
    sqlite3.SQLITE_BUSY_SNAPSHOT,
    sqlite3.SQLITE_BUSY_TIMEOUT,
    sqlite3.SQLITE_LOCKED,
)


class Held(sqlite3.OperationalError):
    """Another process did not let go of the ledger's own lock in time."""


def failure(path: Path, error: sqlite3.DatabaseError) -> SandboxError:
    """The error of ours for one of SQLite's, from whatever was done with the ledger at `path`."""
    if not isinstance(error, sqlite3.OperationalError):
        return _damaged(path, error)
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(error, Held) or code in _BUSY:
        return _busy(path, error)
    if code != sqlite3.SQLITE_ERROR:
        return _full(path, error)
    return _damaged(path, error) if _knows_json() else _without_json()


def _busy(path: Path, error: sqlite3.Error) -> ResourceExhaustedError:
    return ResourceExhaustedError(
        f"the ledger {path} is held by another process: {error}; try again later, and see whether"
        f" one that holds it is stopped: fuser {path} {path}.lock",
        op="ledger",
    )


def _full(path: Path, error: sqlite3.Error) -> ResourceExhaustedError:
    return ResourceExhaustedError(
        f"the ledger {path} cannot be used: {error}; free space there, let this user write there,"
        " or set RINGFENCE_STATE_DIR",
        op="ledger",
    )


def _damaged(path: Path, error: sqlite3.Error) -> StateError:
    return StateError(
        f"the ledger {path} is damaged: {error}; move it away, and look yourself for what"
        " sandboxes have left",
        op="ledger",
    )


def _knows_json() -> bool:
    """Whether this Python's SQLite has functions for JSON, which can be left out of it."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute("SELECT json_valid(key) FROM json_each('{}')")
        except sqlite3.OperationalError:
            return False
    return True


def _without_json() -> UnsupportedError:
    return UnsupportedError(
        f"ledger: the SQLite {sqlite3.sqlite_version} of this Python was built without JSON"
        " functions, by which sandboxes are chosen by their labels, and ended ones are listed: use"
        " a Python whose SQLite has them, as those of python.org and the distributions do",
        op="ledger",
    )
