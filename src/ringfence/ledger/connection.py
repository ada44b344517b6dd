"""The connection that a ledger keeps, since opening one costs more than what is done with it."""

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from ringfence.ledger.failures import Held

_BUSY_SECONDS = 10.0
_CHECKPOINT_EVERY = 256
"""Changes, after which what was written is moved from SQLite's journal into the file."""
_AGAIN_AFTER = 16
"""Changes, after which that is tried again where somebody was at it."""
_JOURNAL_BYTES = 4 * 2**20
"""So is what others have left in it that come and go before they made as many."""
_TURN_SECONDS = 60.0
_LOOK_SECONDS = 0.005
_FORK_SECONDS = 1.0
_of_parents: list["Kept"] = []
_all: "weakref.WeakSet[Kept]" = weakref.WeakSet()
_held: list["Kept"] = []


class Busy(Exception):
    """Something would have to be waited for."""


class Kept:
    """One connection of this process, opened when it is needed and used by one thread at a time,
    and closed before a fork: SQLite would take the parent's locks for its own there, hold none, and
    write to a journal that the parent removes when it closes the file.

    prepare: called with each connection that was opened, and the path. pid: the process that it
    belongs to; a forked one must not touch it.
    """

    def __init__(self, path: Path, prepare: Callable[[sqlite3.Connection, Path], None]) -> None:
        self.pid = os.getpid()
        self._path = path
        self._prepare = prepare
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._closing: Callable[[], object] | None = None
        self._moved = 0
        self._waits = True
        _all.add(self)

    def before_fork(self) -> None:
        """Nobody else opens it until `_held` is let go. One that a thread is at for long stays."""
        if self._lock.acquire(timeout=_FORK_SECONDS):
            _held.append(self)
            self._close()

    def forked(self) -> None:
        """It may be opened again, in both."""
        self._lock.release()

    def after_fork(self) -> "Kept":
        """A new one for a forked process. The old one is never closed there: it is its parent's."""
        _of_parents.append(self)
        return Kept(self._path, self._prepare)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction, rolled back by what raises. sqlite3.DatabaseError, and then the next one
        opens the file again; IntegrityError, which says nothing of the file."""
        with self._lock:
            connection = self._open()
            self._wait(connection, True)
            with self._within(connection):
                yield connection
            if self._is_full(connection):
                self._checkpoint(connection)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[sqlite3.Connection]:
        """As `transaction`, for who must not be held up: Busy, and nothing is done, where another
        thread or process is at it, the file is to be opened, the journal is to be begun or to be
        emptied, or it fails, which `transaction` then tells."""
        if not self._lock.acquire(blocking=False):
            raise Busy
        try:
            connection = self._connection
            if connection is None or self._file != self._identity():
                raise Busy
            if not connection.total_changes or self._is_full(connection):
                raise Busy
            self._wait(connection, False)
            with connection:
                yield connection
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError:
            raise Busy from None
        finally:
            self._lock.release()

    def _wait(self, connection: sqlite3.Connection, waits: bool) -> None:
        """Whether SQLite is to wait for other processes from now on."""
        if self._waits != waits:
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * waits * 1000:.0f}")
            self._waits = waits

    @contextlib.contextmanager
    def _within(self, connection: sqlite3.Connection) -> Iterator[None]:
        try:
            with connection:
                yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError:
            self._close()
            raise

    def _is_full(self, connection: sqlite3.Connection) -> bool:
        return connection.total_changes - self._moved >= _CHECKPOINT_EVERY

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        """What was written is safe in the journal, which grows where this fails. The next to write
        begins it anew and waits for the disk: that is done here, by writing what is there."""
        self._moved = connection.total_changes
        with contextlib.suppress(sqlite3.DatabaseError):
            self._wait(connection, False)
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            if busy:
                self._moved -= _CHECKPOINT_EVERY - _AGAIN_AFTER
            connection.execute("PRAGMA application_id = 0")

    def _open(self) -> sqlite3.Connection:
        """The connection, a new one when the file is another by now."""
        if self._connection is not None and self._file == self._identity():
            return self._connection
        self._close()
        with self._alone():
            self._make_private()
            connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, check_same_thread=False)
            try:
                connection.row_factory = sqlite3.Row
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA wal_autocheckpoint = 0")
                connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
                self._prepare(connection, self._path)
            except BaseException:
                connection.close()
                raise
        self._connection, self._file, self._waits = connection, self._identity(), True
        self._moved = -_CHECKPOINT_EVERY if self._is_long() else 0
        self._closing = weakref.finalize(self, _close_own, connection, self.pid)
        return connection

    def _is_long(self) -> bool:
        try:
            return os.stat(f"{self._path}-wal").st_size > _JOURNAL_BYTES  # noqa: PTH116 - as below
        except OSError:
            return False

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time: while the journal's mode is set, SQLite does not wait for others,
        it says at once that the file is locked. `Held` where another one has it for long, as one
        that is stopped does."""
        try:
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise sqlite3.OperationalError(str(error)) from None
        try:
            _take(lock)
            yield
        finally:
            os.close(lock)

    def _make_private(self) -> None:
        """Specs hold variables, which hold secrets. SQLite gives its other files the same mode."""
        try:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            for path in (self._path, Path(f"{self._path}-wal"), Path(f"{self._path}-shm")):
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    if path.stat().st_mode & 0o077:
                        path.chmod(0o600)
        except OSError as error:
            raise sqlite3.OperationalError(str(error)) from None

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - once a transaction
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _close(self) -> None:
        if self._closing is not None:
            self._closing()
        self._connection = self._closing = None


def _take(lock: int) -> None:
    until = time.monotonic() + _TURN_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise Held(f"its lock is taken for over {_TURN_SECONDS:g} s") from None
            time.sleep(_LOOK_SECONDS)
        else:
            return


def _close_own(connection: sqlite3.Connection, pid: int) -> None:
    """Nobody uses it any more, or the process ends. A fork's is its parent's."""
    if pid == os.getpid():
        connection.close()


def _before_fork() -> None:
    for kept in list(_all):
        kept.before_fork()


def _forked() -> None:
    while _held:
        _held.pop().forked()


os.register_at_fork(before=_before_fork, after_in_parent=_forked, after_in_child=_forked)
