"""One application of changes to an original, on record while it goes on.

What it will do is written into the workspace's directory before the original is touched. Whoever
finds that record, because the client was killed meanwhile, undoes what was done of it: `settle`.
New files are made in a directory of ours inside the original, old ones are moved there, and nothing
of it is dropped before the record says that all is in place.
"""

import fcntl
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ringfence.errors import StateError
from ringfence.workspace import applied
from ringfence.workspace.beneath import (
    DIRECTORY_FLAGS,
    above,
    lstat,
    open_directory,
    open_resolved,
    parent_of,
    remove_tree,
)
from ringfence.workspace.changes import Change
from ringfence.workspace.failures import failed, shown

_RUNNING = f"{applied.RECORD}.new"
_TURN_TRIES, _TURN_SECONDS = 1200, 0.05


@dataclass(frozen=True, slots=True)
class Application:
    """What is done to the original. place: the directory of ours in it. moves: by number, the path
    that is moved away into `old-NUMBER` and the one that `new-NUMBER` becomes. above: directories
    over the old paths, with mode, uid and gid. made: those over the new paths that are not there
    yet, each before what it holds."""

    original: str
    place: str
    moves: Sequence[tuple[str | None, str | None]]
    above: Mapping[str, Sequence[int]]
    made: Sequence[str]

    @classmethod
    def of(cls, changes: Sequence[Change], root: int, original: Path, place: str) -> "Application":
        """That of `changes` to the original, which is open as `root`."""
        moves = [(_old_path(change), change.path if change.new else None) for change in changes]
        there: dict[str, Sequence[int]] = {}
        made: list[str] = []
        for path in {over for old, _ in moves if old for over in above(old)}:
            status = lstat(root, path)
            if status is not None and stat.S_ISDIR(status.st_mode):
                there[path] = status.st_mode & 0o7777, status.st_uid, status.st_gid
        for path in {over for _, new in moves if new for over in above(new)} - there.keys():
            status = lstat(root, path)
            if status is None or not stat.S_ISDIR(status.st_mode):
                made.append(path)
        return cls(str(original), place, moves, there, sorted(made))

    def undo(self, root: int) -> None:
        """Put everything back that was done of it. Idempotent.

        StateError when somebody put something else in the way, and what `failed` says of the
        machine: the directory `place` stays then, with all that has not been put back.
        """
        try:
            self._undo(root)
        except OSError as error:
            path = error.filename or self.place
            raise failed(error, path, "undoing an application", writing=True) from None

    def _undo(self, root: int) -> None:
        try:
            beside = open_directory(root, self.place)
        except FileNotFoundError:
            return
        try:
            for number, (_, new) in enumerate(self.moves):
                if new is not None:
                    _unplace(root, beside, f"new-{number}", new)
            for path in reversed(self.made):
                with suppress(OSError), parent_of(root, path) as (directory, last):
                    os.rmdir(last, dir_fd=directory)
            for path in sorted(self.above):
                _remake(root, path, *self.above[path])
            for number, (old, _) in enumerate(self.moves):
                if old is not None:
                    self._put_back(root, beside, f"old-{number}", old)
        finally:
            os.close(beside)
        remove_tree(root, self.place)

    def _put_back(self, root: int, beside: int, name: str, path: str) -> None:
        if lstat(beside, name) is None:
            return
        if lstat(root, path) is not None:
            raise StateError(
                f"{shown(path)} is in the way of undoing an application that was broken off: what"
                f" was there is {shown(self.place)}/{name} in the repository; put one of them"
                " away, and repeat it",
                op="workspace.apply",
                context={"path": shown(path)},
            )
        with parent_of(root, path) as (directory, last):
            os.rename(name, last, src_dir_fd=beside, dst_dir_fd=directory)


def _old_path(change: Change) -> str | None:
    return (change.old_path or change.path) if change.old else None


def _unplace(root: int, beside: int, name: str, path: str) -> None:
    """Take away what was placed: it has the same inode as what is still beside."""
    made, there = lstat(beside, name), lstat(root, path)
    if made is not None and there is not None and os.path.samestat(made, there):
        with parent_of(root, path) as (directory, last):
            os.unlink(last, dir_fd=directory)


def _remake(root: int, path: str, mode: int, uid: int, gid: int) -> None:
    if lstat(root, path) is not None:
        return
    with parent_of(root, path) as (directory, last):
        os.mkdir(last, 0o700, dir_fd=directory)
        with suppress(PermissionError):
            os.chown(last, uid, gid, dir_fd=directory)
        os.chmod(last, mode, dir_fd=directory)


class Record:
    """The application of a workspace, written before the original is touched: a disk that is full
    is found out while nothing is applied. `keep` makes it what was applied, `drop` forgets it."""

    def __init__(self, directory: Path, application: Application, states: applied.States) -> None:
        """ResourceExhaustedError when it cannot be written."""
        self._beside = directory / _RUNNING
        text = applied.text(states, application=asdict(application))
        try:
            self._beside.write_text(text, encoding="utf-8")
        except OSError as error:
            self.drop()
            raise failed(
                error, self._beside, "no record, nothing applied: free space there and repeat it"
            ) from None

    def keep(self) -> None:
        """All is in place. OSError."""
        self._beside.replace(self._beside.with_name(applied.RECORD))

    def drop(self) -> None:
        """It does not go on any more. Idempotent."""
        with suppress(OSError):
            self._beside.unlink()


def settle(directory: Path) -> None:
    """Undo what a client that was killed had half applied of the workspace `directory`, and remove
    what one left that was killed after it. Idempotent.

    StateError when the original is gone, is locked for long, or somebody put something in the way:
    the record stays then. Only who holds `alone` may call it. It blocks.
    """
    _finish(directory / applied.RECORD)
    running = directory / _RUNNING
    found = applied.read_application(running)
    if found is not None:
        application = Application(**found)
        try:
            root = open_resolved(application.original)
        except OSError as error:
            raise failed(error, application.original, "undoing an application") from None
        try:
            turn(root)
            application.undo(root)
        finally:
            os.close(root)
    running.unlink(missing_ok=True)


def _finish(record: Path) -> None:
    """Remove what was moved away when all was in place."""
    found = applied.read_application(record)
    if found is None:
        return
    application = Application(**found)
    with suppress(OSError):
        root = open_resolved(application.original)
        try:
            remove_tree(root, application.place)
        finally:
            os.close(root)


@contextmanager
def alone(directory: Path, *, waits: bool = False) -> Iterator[None]:
    """Be the only one who applies or removes the workspace `directory`; StateError when somebody
    is. waits: until nobody is. FileNotFoundError when the workspace is gone."""
    lock = os.open(directory, DIRECTORY_FLAGS)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            raise StateError(
                "these changes are being applied by somebody else: one at a time",
                op="workspace.apply",
            ) from None
        yield
    finally:
        os.close(lock)


def turn(root: int) -> None:
    """Wait until no other workspace is applied to the original that is open as `root`: what was
    compared there must still be so when it is written. It holds until `root` is closed.

    StateError when that takes over a minute. It blocks.
    """
    for _ in range(_TURN_TRIES):
        try:
            fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_TURN_SECONDS)
        except OSError:  # a file system without locks
            return
        else:
            return
    raise StateError(
        "the repository is locked by another program, or changes of another sandbox are applied to"
        " it: repeat it afterwards",
        op="workspace.apply",
    )
