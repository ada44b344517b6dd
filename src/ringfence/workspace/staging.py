"""A frozen tree of the selected files: what stands below a sandbox's writable layer.

Files become hard links of the originals (nothing is copied, and what is renamed, replaced or added
in the original later is not seen), reflinks or copies where links are not possible or where owner
or mode must differ. Directories are our own. An original edited in place shows through a hard link;
`changed` tells it from the record.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
from ringfence.workspace.linking import Begun, is_linked
from ringfence.workspace.ownership import Ownership
from ringfence.workspace.stopping import Check, always

_FICLONE = 0x40049409
_THREADS = min(4, os.cpu_count() or 1)
_FEW = 1000
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)
_NO_RANGE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Stage:
    """Puts entries of one tree into another, one after the other. path: where it is just now."""

    def __init__(
        self, root: int, target: int, ownership: Ownership, links: bool, check: Check = always
    ) -> None:
        self.root, self.target = root, target
        self.check = check
        self.ownership = ownership
        self.links = links and ownership.keeps
        self.reflinks = True
        self.ranges = True
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
        """Let go of the directories that are open."""
        if self._open is not None:
            os.close(self._open[1])
            os.close(self._open[2])
            self._open = None

    def group(self, directory: str, entries: Sequence[Entry]) -> list[Entry]:
        """Put the files and links of one directory, which is there, into the copy."""
        self.path = directory or "."
        self.check()
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
        self.check()
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
        at = 0
        for start, end in _pieces(reader, size):
            at = start
            while at < end:
                done = self._piece(reader, writer, at, end - at)
                if not done:
                    return
                at += done
        if at < size:  # a hole is the end
            os.ftruncate(writer, size)

    def _piece(self, reader: int, writer: int, start: int, size: int) -> int:
        """Copy so many bytes or fewer; how many, 0 at the end of the file."""
        if self.ranges:
            try:
                return os.copy_file_range(reader, writer, size, start, start)
            except OSError as error:
                if error.errno not in _NO_RANGE:
                    raise
                self.ranges = False
        return os.pwrite(writer, os.pread(reader, min(size, 1 << 20), start), start)

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


def _pieces(reader: int, size: int) -> Iterator[tuple[int, int]]:
    """Where the data of a file is, from and to: a sparse one has holes between."""
    if os.fstat(reader).st_blocks * 512 >= size:
        yield 0, size
        return
    end = 0
    while end < size:
        try:
            start = os.lseek(reader, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        end = os.lseek(reader, start, os.SEEK_HOLE)
        yield start, min(end, size)


def stage(
    root: int,
    entries: Sequence[Entry],
    target: int,
    *,
    ownership: Ownership | None = None,
    links: bool = True,
    begun: Begun | None = None,
    check: Check = always,
) -> Staged:
    """Put `entries` of the tree `root` into the directory `target` (both descriptors), which holds
    nothing but what `begun` names.

    links: hard links where they are possible; each is recorded as it was chosen, so that what was
    edited since then is told by `check_unchanged`. Large trees take several threads. check: what it
    raises ends the work.
    Errors: StateError when the tree changes meanwhile, ResourceExhaustedError when the disk is
    full, InvalidSpecError for what cannot be read; each names the path. What was made stays: the
    caller removes the directory. It blocks.
    """
    wanted = ownership or Ownership()
    there = begun or {}
    linked_already = {f"{path}/{name}".lstrip("/") for path in there for name in there[path]}
    ready: list[Entry] = []
    groups: dict[str, list[Entry]] = {}
    directories: list[Entry] = []
    for entry in entries:
        if entry.kind == DIRECTORY:
            directories.append(entry)
        elif entry.path in linked_already and is_linked(entry):
            ready.append(entry)
        else:
            groups.setdefault(entry.path.rpartition("/")[0], []).append(entry)
    directories.sort(key=lambda entry: entry.path)
    _drop(target, there, ready)
    missing = [entry for entry in directories if entry.path not in there]
    _worked(Stage(root, target, wanted, links), lambda work: _made(work, missing))
    works = [Stage(root, target, wanted, links, check) for _ in range(_threads(groups))]
    staged, linked = _filled(works, list(groups.items()))
    done = _worked(Stage(root, target, wanted, links), lambda work: _finished(work, directories))
    return Staged([*done, *ready, *staged], linked)


def _drop(target: int, begun: Begun, ready: Sequence[Entry]) -> None:
    """Unlink what was linked and is hidden after all."""
    if sum(map(len, begun.values())) == len(ready):
        return
    wanted = {entry.path for entry in ready}
    for directory, names in begun.items():
        gone = [name for name in names if f"{directory}/{name}".lstrip("/") not in wanted]
        if gone:
            place = open_directory(target, directory)
            try:
                for name in gone:
                    os.unlink(name, dir_fd=place)
            finally:
                os.close(place)


_Group = tuple[str, list[Entry]]


def _threads(groups: Mapping[str, Sequence[Entry]]) -> int:
    return _THREADS if sum(map(len, groups.values())) > _FEW else 1


def _filled(works: list[Stage], groups: list[_Group]) -> tuple[list[Entry], bool]:
    """Stage the files of all directories, with a thread for each work; whether all are linked."""
    waiting = iter(groups)

    def run(work: Stage) -> list[Entry]:
        staged: list[Entry] = []
        try:
            for directory, entries in waiting:
                staged += work.group(directory, entries)
        except BaseException:
            for _ in waiting:  # the other threads find nothing more
                pass
            raise
        return staged

    if len(works) == 1:
        found = [_worked(works[0], run)]
    else:
        with ThreadPoolExecutor(len(works)) as pool:
            found = list(pool.map(lambda work: _worked(work, run), works))
    return [entry for part in found for entry in part], all(work.links for work in works)


def _worked(work: Stage, run: Callable[[Stage], list[Entry]]) -> list[Entry]:
    try:
        return run(work)
    except OSError as error:
        raise failed(error, work.path, "staging the repository") from None
    finally:
        work.close()


def _made(work: Stage, directories: Sequence[Entry]) -> list[Entry]:
    for entry in directories:
        work.path = entry.path
        work.add(entry)
    return []


def _finished(work: Stage, directories: Sequence[Entry]) -> list[Entry]:
    staged = []
    for entry in reversed(directories):
        work.path = entry.path
        staged.append(work.finish(entry))
    return staged[::-1]


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
