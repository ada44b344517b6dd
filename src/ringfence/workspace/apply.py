"""Changes on their way into the original.

Nothing is followed, nothing outside is written, and what cannot be done whole is undone: where this
client is killed, by the next one.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from ringfence.errors import (
    PolicyDeniedError,
    StateError,
)
from ringfence.workspace import applied, attributes, checking
from ringfence.workspace.application import Application, Record, alone, settle, turn
from ringfence.workspace.beneath import (
    above,
    lstat,
    open_directory,
    open_resolved,
    parent_of,
    remove_tree,
)
from ringfence.workspace.changes import Change, Changes, Side
from ringfence.workspace.checking import is_same, moved
from ringfence.workspace.entries import LINK, leaves
from ringfence.workspace.failures import failed, reading, shown
from ringfence.workspace.layers import Layers
from ringfence.workspace.prepared import Prepared, Since

_NO_LINK = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


def apply(prepared: Prepared, *, since: Since = "repository") -> Changes:
    """Write the changes into the original; the changes that were written.

    First every touched path of the original is compared with what the sandbox started from:
    StateError names one that is not so any more, PolicyDeniedError a link that would leave the
    repository. Then all is written beside and renamed into place; when that fails half-way, what
    was done is undone; where the client is killed, whoever applies this workspace next, or removes
    it, undoes it. ResourceExhaustedError when there is no room for it or for the record of it:
    nothing was applied then. Applied again, only what differs from what was applied last is
    written. What is carried nowhere is not written, and named in `refused`. It blocks.
    """
    if prepared.original is None:
        raise StateError(
            "a cloned repository has no original to change: take the patch", op="workspace.apply"
        )
    prepared.check_kept()
    with alone(prepared.directory):
        settle(prepared.directory)
        return _applied(prepared, prepared.original, since)


def _applied(prepared: Prepared, original: Path, since: Since) -> Changes:
    changes = prepared.changes(since=since)
    before = applied.read(prepared.directory)
    if before:
        with prepared.now() as now:
            changes = applied.remaining(changes, before, now)
    if not changes.items:
        return changes
    try:
        root = open_resolved(original)
    except OSError as error:
        raise StateError(
            f"the original is not where it was: {shown(original)}: {error.strerror}",
            op="workspace.apply",
        ) from None
    try:
        turn(root)
        application = _checked(changes, root, original, modes=prepared.keeps_modes)
        states = {**before, **applied.wanted(changes)}
        record = Record(prepared.directory, application, states)
        with prepared.now() as now:
            _Writing(root, now, application).run(changes, record)
    finally:
        os.close(root)
    return changes


def _checked(changes: Changes, root: int, original: Path, *, modes: bool) -> Application:
    """The application of changes to an original that is as they need it. modes: see `check`."""
    try:
        checking.check(changes, root, modes=modes)
        return Application.of(changes.items, root, original, f".ringfence-apply-{token_hex(6)}")
    except OSError as error:
        place = error.filename or original
        raise failed(error, place, "comparing with the repository") from None


class _Writing:
    """One application: new files are made in a directory of ours inside the repository, old ones
    are moved there, and only then is anything dropped."""

    def __init__(self, root: int, now: Layers, application: Application) -> None:
        self.root, self.now, self.application = root, now, application

    def run(self, changes: Changes, record: Record) -> None:
        try:
            self._write(changes, record)
        except BaseException:
            self.application.undo(self.root)
            record.drop()
            raise
        remove_tree(self.root, self.application.place)

    def _write(self, changes: Changes, record: Record) -> None:
        path = self.application.original
        try:
            os.mkdir(self.application.place, 0o700, dir_fd=self.root)
            beside = open_directory(self.root, self.application.place)
            try:
                for number, change in enumerate(changes):
                    path = change.path
                    self._make(change, f"new-{number}", beside)
                for number, change in enumerate(changes):
                    path = change.path
                    self._away(change, f"old-{number}", beside)
                self._drop_empty(changes)
                for number, change in enumerate(changes):
                    path = change.path
                    self._place(change, f"new-{number}", beside)
                record.keep()
            finally:
                os.close(beside)
        except OSError as error:
            raise failed(error, path, "applying the changes", writing=True) from None

    def _make(self, change: Change, name: str, beside: int) -> None:
        if change.new is None:
            return
        with reading(change.path):
            found = self.now.find(change.path)
        if found is None:
            raise moved(change.path, "it changed in the sandbox meanwhile")
        if change.new.kind == LINK:
            with reading(change.path):
                target = self.now.target(change.path, found)
            if leaves(change.path, target):
                raise PolicyDeniedError(
                    f"{shown(change.path)} is a link out of the repository, to {shown(target)}:"
                    " it is not made on the host",
                    op="workspace.apply",
                    context={"path": shown(change.path)},
                )
            os.symlink(target, name, dir_fd=beside)
            return
        with reading(change.path):
            opened = self.now.open(change.path, found)
        copy_out(opened, beside, name, change.new)
        self._dress(change, name, beside)

    def _dress(self, change: Change, name: str, beside: int) -> None:
        """Mode as inside when it changed there, else the original's; all else is the original's."""
        path = change.old_path or change.path
        before = lstat(self.root, path) if change.old else None
        mode = change.new.mode if change.new else 0o644
        if before is not None and change.old and change.new and change.old.mode == change.new.mode:
            mode = before.st_mode & 0o777
        if before is not None and stat.S_ISREG(before.st_mode):
            attributes.keep(self.root, path, beside, name)
        os.chmod(name, mode & 0o777, dir_fd=beside)
        owner = before or os.fstat(self.root)
        if os.geteuid() == 0:
            os.chown(name, owner.st_uid, owner.st_gid, dir_fd=beside, follow_symlinks=False)

    def _away(self, change: Change, name: str, beside: int) -> None:
        if change.old is None:
            return
        path = change.old_path or change.path
        with parent_of(self.root, path) as (directory, last):
            os.rename(last, name, src_dir_fd=directory, dst_dir_fd=beside)

    def _place(self, change: Change, name: str, beside: int) -> None:
        if change.new is None:
            return
        self._parents(change.path)
        with parent_of(self.root, change.path) as (directory, last):
            # link(2) does not replace what appeared meanwhile, as rename(2) would
            try:
                os.link(name, last, src_dir_fd=beside, dst_dir_fd=directory, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                raise StateError(
                    f"{shown(change.path)} cannot be put into place, where no hard link can be"
                    f" made ({error.strerror}): take the patch, and apply it with git apply",
                    op="workspace.apply",
                    context={"path": shown(change.path)},
                ) from None

    def _parents(self, path: str) -> None:
        for place in above(path):
            status = lstat(self.root, place)
            if status is not None and not stat.S_ISDIR(status.st_mode):
                raise moved(place, "it is no directory")
            if status is None:
                with parent_of(self.root, place) as (directory, last):
                    os.mkdir(last, 0o755, dir_fd=directory)
                    if os.geteuid() == 0:
                        owner = os.fstat(directory)
                        os.chown(last, owner.st_uid, owner.st_gid, dir_fd=directory)

    def _drop_empty(self, changes: Changes) -> None:
        """Remove directories that the changes emptied and that the sandbox does not have."""
        for change in changes:
            if change.old is None:
                continue
            for place in reversed(above(change.old_path or change.path)):
                with reading(place):
                    found = self.now.find(place)
                status = lstat(self.root, place)
                if status is None or (found and stat.S_ISDIR(found.status.st_mode)):
                    break
                with suppress(OSError), parent_of(self.root, place) as (directory, last):
                    os.rmdir(last, dir_fd=directory)


def copy_out(descriptor: int, directory: int, name: str, side: Side | None, limit: int = -1) -> int:
    """Copy an open file to the new file `name`; the number of bytes. It closes the descriptor.

    side: what it must be, else StateError. limit: the most bytes there may be, negative for any.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        writer = os.open(name, flags, 0o600, dir_fd=directory)
        with os.fdopen(writer, "wb") as file, os.fdopen(os.dup(descriptor), "rb") as reader:
            most = side.size if side is not None else limit
            size = 0
            while piece := reader.read(1 << 20):
                size += len(piece)
                if 0 <= most < size:
                    break
                file.write(piece)
            file.flush()
            if side is not None and size != side.size:
                raise moved(name, "it changed in the sandbox meanwhile")
    finally:
        os.close(descriptor)
    if side is not None and not is_same(directory, name, side):
        raise moved(name, "it changed in the sandbox meanwhile")
    return size
