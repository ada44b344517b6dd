"""Entries of a tree, put into another one by one: linked where they may be, else copied."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ringfence.workspace.beneath import open_directory, open_regular
from ringfence.workspace.entries import DIRECTORY, FILE, Entry, entry_of, same_content
from ringfence.workspace.filling import Filling
from ringfence.workspace.linking import is_linked
from ringfence.workspace.ownership import Ownership
from ringfence.workspace.stopping import Check, always

_NO_LINKS = (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS)
"""Between these two trees no file can be linked."""
_NO_LINK = (errno.EMLINK, errno.EPERM, errno.EACCES)
"""This one cannot: it has as many names as it may, or it is somebody else's."""


class Stage:
    """Puts entries of one tree into another, one after the other. path: where it is just now.
    linked: whether every file so far is a hard link of its original."""

    def __init__(
        self, root: int, target: int, ownership: Ownership, links: bool, check: Check = always
    ) -> None:
        self.root, self.target = root, target
        self.check = check
        self.ownership = ownership
        self.links = self.linked = links and ownership.keeps
        self._filling = Filling()
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
                if self.links and is_linked(entry) and self._link(name, source, target):
                    linked[name] = entry
                else:
                    self.linked = self.linked and entry.kind != FILE
                    staged.append(self.add(entry))
            if linked:
                self._verify(linked, target)
        return [*linked.values(), *staged]

    def _link(self, name: str, source: int, target: int) -> bool:
        try:
            os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (*_NO_LINKS, *_NO_LINK):
                raise
            self.links = error.errno in _NO_LINK
            return False
        return True

    def _verify(self, linked: dict[str, Entry], target: int) -> None:
        """Whether the names that were linked are the files that were chosen: one listing tells it
        of all, since a link never leaves its file system. A new symbolic link may have the inode
        that a file had."""
        with os.scandir(target) as found:
            inodes = {e.name: e.inode() for e in found if e.is_file(follow_symlinks=False)}
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
                self._filling.fill(reader, writer, entry.size)
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
