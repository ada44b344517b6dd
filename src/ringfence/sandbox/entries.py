"""What file operations give back."""

import enum
import posixpath
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ringfence.guest.protocol import Stat
from ringfence.guest.walks import Entry


class Kind(enum.StrEnum):
    """What a path is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER_DEVICE = "character_device"
    BLOCK_DEVICE = "block_device"
    UNKNOWN = "unknown"


_TYPE_BITS, _MODE_BITS = 0o170000, 0o7777
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
}


class FileInfo(NamedTuple):
    """One path and what stat(2) says of it.

    path: as it was asked for, or joined from the directory and the name; bytes that are not UTF-8
    are surrogates, so that os.fsencode gives them back. size: bytes. mode: permission bits.
    mtime: seconds since the epoch. blocks: of 512 bytes, below size / 512 in sparse files.
    """

    path: str
    kind: Kind
    size: int
    mode: int
    uid: int
    gid: int
    mtime: float
    inode: int
    links: int
    blocks: int

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.path)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.kind is Kind.FILE

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.kind is Kind.DIRECTORY


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a directory. cursor: where the next page begins, None at the end."""

    entries: tuple[FileInfo, ...]
    cursor: bytes | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names alone, sorted."""
        return tuple(sorted(entry.name for entry in self.entries))


@dataclass(frozen=True, slots=True)
class FileEvent:
    """A change below a watched path.

    kind: "created", "modified", "deleted", "moved_from", "moved_to", "attributes", "closed" (after
    writing) or "overflow" (changes were missed: look again). The watched path itself is told of,
    too, when it is removed or moved away. cookie: the same for the two halves of a move, else 0.
    """

    kind: str
    path: str
    is_directory: bool
    cookie: int = 0


def file_info(path: str, found: Stat) -> FileInfo:
    """The FileInfo of a guest's stat."""
    mode, uid, gid, size, blocks, mtime_ns, inode, links = found
    kind = _KINDS.get(mode & _TYPE_BITS, Kind.UNKNOWN)
    bits = mode & _MODE_BITS
    return FileInfo(path, kind, size, bits, uid, gid, mtime_ns / 1e9, inode, links, blocks)


def below(directory: str) -> Callable[[Entry], FileInfo]:
    """Makes the FileInfo of each entry of a directory."""
    base = directory if directory.endswith("/") else directory + "/"

    def made(entry: Entry) -> FileInfo:
        return file_info(base + entry.name.decode("utf-8", "surrogateescape"), entry.stat)

    return made


_IN_ISDIR = 0x40000000
_EVENTS = (
    (0x4000, "overflow"),
    (0x100, "created"),
    (0x600, "deleted"),
    (0x840, "moved_from"),
    (0x80, "moved_to"),
    (0x8, "closed"),
    (0x2, "modified"),
    (0x4, "attributes"),
)


def file_event(mask: int, cookie: int, path: str) -> FileEvent:
    """The FileEvent of an inotify(7) mask."""
    kind = next((name for bits, name in _EVENTS if mask & bits), "overflow")
    return FileEvent(kind, path, bool(mask & _IN_ISDIR), cookie)
