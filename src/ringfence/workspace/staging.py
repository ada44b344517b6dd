"""A frozen tree of the selected files: what stands below a sandbox's writable layer.

Files become hard links of the originals (nothing is copied, and what is renamed, replaced or added
in the original later is not seen), reflinks or copies where links are not possible or where owner
or mode must differ. Directories are our own. An original edited in place shows through a hard link;
`changed` tells it from the record.
"""

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from ringfence.errors import StateError
from ringfence.workspace.beneath import DIRECTORY_FLAGS, open_directory, open_regular
from ringfence.workspace.entries import (
    DIRECTORY,
    FILE,
    Entry,
    entry_of,
    same_content,
)
from ringfence.workspace.failures import failed, shown

DEEPEST = 4000
"""Bytes of the longest path that a layer may hold to be copied."""
_FICLONE = 0x40049409
_THREADS = min(4, os.cpu_count() or 1)
_FEW = 1000
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class Ownership:
    """How owners and modes are written. None keeps the original's.

    owner: uid and gid of everything. was: only what belongs to this uid becomes the owner's.
    """

    owner: tuple[int, int] | None = None
    was: int | None = None
    file_mode: int | None = None
    directory_mode: int | None = None

    @property
    def keeps(self) -> bool:
        """Whether everything stays as it is."""
        return self == Ownership()

    def of(self, entry: Entry) -> tuple[int, int]:
        """uid and gid that `entry` gets."""
        if self.owner is None or (self.was is not None and entry.uid != self.was):
            return entry.uid, entry.gid
        return self.owner

    def mode(self, entry: Entry) -> int:
        """Permission bits that `entry` gets; set-user-id, set-group-id and sticky never."""
        wanted = self.directory_mode if entry.kind == DIRECTORY else self.file_mode
        return (entry.mode if wanted is None else wanted) & 0o777


class _Stage:
    def __init__(self, root: int, target: int, ownership: Ownership, links: bool) -> None:
        self.root, self.target = root, target
        self.ownership = ownership
        self.links = links and ownership.keeps
        self.reflinks = True
        self.root_user = os.geteuid() == 0
        self.path = "."
        self._open: tuple[str, int, int] | None = None

    @contextmanager
    def parents(self, directory: str) -> Iterator[tuple[int, int]]:
        """The directory in the original and in the copy; kept open for the next entry."""
        if self._open is None or self._open[0] != directory:
            self.close()
            source = open_directory(self.root, directory)
            try:
                self._open = (directory, source, open_directory(self.target, directory))
            except BaseException:
                os.close(source)
                raise
        yield self._open[1:]

    def close(self) -> None:
        if self._open is not None:
            os.close(self._open[1])
            os.close(self._open[2])
            self._open = None

    def group(self, directory: str, entries: Sequence[Entry]) -> list[Entry]:
        """Put the files and links of one directory, which is there, into the copy."""
        self.path = directory or "."
        staged: list[Entry] = []
        linked: dict[str, Entry] = {}
        with self.parents(directory) as (source, target):
            for entry in entries:
                self.path = entry.path
                name = entry.path.rpartition("/")[2]
                if self._links(entry) and self._link(name, source, target):
                    linked[name] = entry
                else:
                    staged.append(self.add(entry))
            if linked:
                self._verify(linked, target)
        return [*linked.values(), *staged]

    def _links(self, entry: Entry) -> bool:
        return self.links and entry.kind == FILE and entry.mode & 0o7000 == 0

    def _link(self, name: str, source: int, target: int) -> bool:
        try:
            os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            self.links = False
        return self.links

    def _verify(self, linked: dict[str, Entry], target: int) -> None:
        """Whether the names that were linked are the files that were chosen: one listing tells it
        of all, since a link never leaves its file system."""
        with os.scandir(target) as found:
            inodes = {there.name: there.inode() for there in found}
        for name, entry in linked.items():
            if inodes.get(name) != entry.inode:
                self.path = entry.path
                raise OSError(errno.ESTALE, "it was replaced meanwhile")

    def add(self, entry: Entry) -> Entry:
        """Put one entry into the copy, never as a hard link."""
        directory, _, name = entry.path.rpartition("/")
        with self.parents(directory) as (source, target):
            if entry.kind == DIRECTORY:
                os.mkdir(name, 0o700, dir_fd=target)
                return entry
            if entry.kind == FILE:
                status = self._copy(entry, name, source, target)
            else:
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
                self._own(entry, name, target)
                status = os.stat(name, dir_fd=target, follow_symlinks=False)
        staged = entry_of(entry.path, status)
        if staged is None or staged.kind != entry.kind:
            raise OSError(errno.ESTALE, "it became another kind of file")
        return staged

    def _copy(self, entry: Entry, name: str, source: int, target: int) -> os.stat_result:
        reader = open_regular(source, name)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            writer = os.open(name, flags, 0o600, dir_fd=target)
            try:
                self._fill(reader, writer, entry.size)
                if self.root_user:
                    os.fchown(writer, *self.ownership.of(entry))
                os.fchmod(writer, self.ownership.mode(entry))
                os.utime(writer, ns=(entry.mtime, entry.mtime))
                written = os.fstat(writer)
            finally:
                os.close(writer)
            after = entry_of(entry.path, os.fstat(reader))
            if after is None or not same_content(entry, after) or written.st_size != entry.size:
                raise OSError(errno.ESTALE, "it changed while it was copied")
        finally:
            os.close(reader)
        return written

    def _fill(self, reader: int, writer: int, size: int) -> None:
        """Write so many bytes of one file into another, fewer when there are fewer."""
        if self.reflinks and size:
            try:
                fcntl.ioctl(writer, _FICLONE, reader)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise
                self.reflinks = False
            else:
                return
        try:
            while size > 0 and (done := os.copy_file_range(reader, writer, size)):
                size -= done
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            with os.fdopen(os.dup(reader), "rb") as one, os.fdopen(os.dup(writer), "wb") as two:
                shutil.copyfileobj(one, two, 1 << 20)

    def _own(self, entry: Entry, name: str, target: int) -> None:
        if self.root_user:
            uid, gid = self.ownership.of(entry)
            os.chown(name, uid, gid, dir_fd=target, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=target, follow_symlinks=False)

    def finish(self, entry: Entry) -> Entry:
        """Give a directory, whose content is there, its owner, mode and time."""
        descriptor = open_directory(self.target, entry.path)
        try:
            if self.root_user:
                os.fchown(descriptor, *self.ownership.of(entry))
            os.fchmod(descriptor, self.ownership.mode(entry))
            os.utime(descriptor, ns=(entry.mtime, entry.mtime))
            staged = entry_of(entry.path, os.fstat(descriptor))
        finally:
            os.close(descriptor)
        if staged is None:
            raise OSError(errno.ESTALE, "it became another kind of file")
        return staged


class Staged(NamedTuple):
    """entries: as they are in the copy, each directory before what it holds. linked: whether every
    file is a hard link of its original, and so the same file."""

    entries: list[Entry]
    linked: bool


def stage(
    root: int,
    entries: Sequence[Entry],
    target: int,
    *,
    ownership: Ownership | None = None,
    links: bool = True,
) -> Staged:
    """Put `entries` of the tree `root` into the empty directory `target` (both descriptors).

    links: hard links where they are possible; each is recorded as it was chosen, so that what was
    edited since then is told by `check_unchanged`. Large trees take several threads.
    Errors: StateError when the tree changes meanwhile, ResourceExhaustedError when the disk is
    full, InvalidSpecError for what cannot be read; each names the path. What was made stays: the
    caller removes the directory. It blocks.
    """
    wanted = ownership or Ownership()
    groups: dict[str, list[Entry]] = {}
    directories: list[Entry] = []
    for entry in entries:
        if entry.kind == DIRECTORY:
            directories.append(entry)
        else:
            groups.setdefault(entry.path.rpartition("/")[0], []).append(entry)
    directories.sort(key=lambda entry: entry.path)
    _worked(_Stage(root, target, wanted, links), lambda work: _made(work, directories))
    staged, linked = _filled(root, target, wanted, links, list(groups.items()))
    done = _worked(_Stage(root, target, wanted, links), lambda work: _finished(work, directories))
    return Staged([*done, *staged], linked)


_Group = tuple[str, list[Entry]]


def _filled(
    root: int, target: int, ownership: Ownership, links: bool, groups: list[_Group]
) -> tuple[list[Entry], bool]:
    """Stage the files of all directories; whether every file is linked."""
    many = sum(len(entries) for _, entries in groups) > _FEW
    threads = _THREADS if many else 1
    works = [_Stage(root, target, ownership, links) for _ in range(threads)]
    waiting = iter(groups)

    def run(work: _Stage) -> list[Entry]:
        staged: list[Entry] = []
        try:
            for directory, entries in waiting:
                staged += work.group(directory, entries)
        except BaseException:
            for _ in waiting:  # the other threads find nothing more
                pass
            raise
        return staged

    if threads == 1:
        found = [_worked(works[0], run)]
    else:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(lambda work: _worked(work, run), works))
    return [entry for part in found for entry in part], all(work.links for work in works)


def _worked(work: _Stage, run: Callable[[_Stage], list[Entry]]) -> list[Entry]:
    try:
        return run(work)
    except OSError as error:
        raise failed(error, work.path, "staging the repository") from None
    finally:
        work.close()


def _made(work: _Stage, directories: Sequence[Entry]) -> list[Entry]:
    for entry in directories:
        work.path = entry.path
        work.add(entry)
    return []


def _finished(work: _Stage, directories: Sequence[Entry]) -> list[Entry]:
    staged = []
    for entry in reversed(directories):
        work.path = entry.path
        staged.append(work.finish(entry))
    return staged[::-1]


def root_entry(root: int) -> Entry:
    """The entry of the tree's own directory, with the path ""."""
    found = entry_of("", os.fstat(root))
    if found is None:
        raise StateError("the repository is not a directory any more", op="workspace")
    return found


def dress(target: int, like: Entry, ownership: Ownership) -> None:
    """Give the directory `target` owner, mode and time as those of `like` become."""
    with suppress(PermissionError):
        os.fchown(target, *ownership.of(like))
    os.fchmod(target, ownership.mode(like))
    os.utime(target, ns=(like.mtime, like.mtime))


def check_unchanged(base: int, recorded: Entry) -> None:
    """StateError when a staged file of the tree `base` is not what was recorded: its original was
    edited in place."""
    directory, _, name = recorded.path.rpartition("/")
    try:
        parent = open_directory(base, directory)
        try:
            now = entry_of(recorded.path, os.stat(name, dir_fd=parent, follow_symlinks=False))
        finally:
            os.close(parent)
    except OSError as error:
        raise failed(error, recorded.path, "reading the staged repository") from None
    if now is None or not same_content(now, recorded):
        raise StateError(
            f"{shown(recorded.path)} was edited in place while the sandbox used it",
            op="workspace",
            context={"path": shown(recorded.path)},
        )


def open_root(path: str | os.PathLike[str]) -> int:
    """A descriptor of a directory that is trusted by its name."""
    return os.open(path, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)


def copy_layer(source: int, target: int, opaque: str) -> None:
    """Copy all below the directory `source` into the empty `target`, as overlay's layers are:
    whiteouts and opaque marks too. Other devices, FIFOs and sockets are left out. OSError."""
    work = _Stage(source, target, Ownership(), links=False)
    waiting, done = [""], []
    try:
        while waiting:
            place = waiting.pop()
            done.append(place)
            directory = open_directory(source, place)
            try:
                with os.scandir(directory) as found:
                    names = [entry.name for entry in found]
            finally:
                os.close(directory)
            for name in names:
                path = f"{place}/{name}" if place else name
                if len(os.fsencode(path)) > DEEPEST:
                    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
                if _layer_entry(work, path, name):
                    waiting.append(path)
        for path in reversed(done):
            _layer_directory(work, path, opaque)
    finally:
        work.close()


def _layer_entry(work: _Stage, path: str, name: str) -> bool:
    """Copy one entry of a layer; whether it is a directory, to be looked into."""
    with work.parents(path.rpartition("/")[0]) as (source, target):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=target)
            return False
        entry = entry_of(path, status)
        if entry is not None:
            work.add(entry)
        return entry is not None and entry.kind == DIRECTORY


def _layer_directory(work: _Stage, path: str, opaque: str) -> None:
    source = open_directory(work.root, path)
    try:
        entry = entry_of(path, os.fstat(source))
        with suppress(OSError):
            mark = os.getxattr(source, opaque)
            target = open_directory(work.target, path)
            try:
                os.setxattr(target, opaque, mark)
            finally:
                os.close(target)
    finally:
        os.close(source)
    if entry is not None and path:
        work.finish(entry)
