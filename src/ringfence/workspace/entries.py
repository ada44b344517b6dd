"""What is known of one path of a tree."""

import os
import stat
from typing import NamedTuple

FILE, DIRECTORY, LINK = "file", "directory", "link"
_LAST = (1 << 63) - 1


class Entry(NamedTuple):
    """One file, directory or symbolic link. path: relative, text with surrogateescape.

    mode: permission bits alone. size: bytes. mtime, ctime: nanoseconds since the epoch; see `held`.
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    ctime: int
    device: int
    inode: int
    links: int


def entry_of(path: str, status: os.stat_result) -> Entry | None:
    """The entry for what lstat said; None for a device, a FIFO or a socket."""
    kind = kind_of(status.st_mode)
    if kind is None:
        return None
    return Entry(
        path,
        kind,
        status.st_mode & 0o7777,
        status.st_uid,
        status.st_gid,
        status.st_size,
        held(status.st_mtime_ns),
        held(status.st_ctime_ns),
        status.st_dev,
        status.st_ino,
        status.st_nlink,
    )


def held(time: int) -> int:
    """The nearest time that 64 bits hold, in nanoseconds: a file may say that it is of the year
    3000."""
    return max(-_LAST - 1, min(time, _LAST))


def kind_of(mode: int) -> str | None:
    """FILE, DIRECTORY or LINK; None for everything else."""
    if stat.S_ISREG(mode):
        return FILE
    if stat.S_ISDIR(mode):
        return DIRECTORY
    return LINK if stat.S_ISLNK(mode) else None


def same_content(one: Entry, other: Entry) -> bool:
    """Whether two looks at one file saw the same bytes, as far as its times and size tell."""
    return (one.device, one.inode, one.size, one.mtime) == (
        other.device,
        other.inode,
        other.size,
        other.mtime,
    )


def leaves(path: str, target: str) -> bool:
    """Whether the symbolic link at `path` that holds `target` points out of its tree."""
    if target.startswith("/"):
        return True
    depth = path.count("/")
    for part in target.split("/"):
        if part == "..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in ("", "."):
            depth += 1
    return False


def is_git_name(name: str) -> bool:
    """Whether git takes `name` for its own directory on any system, and refuses it in a tree."""
    if "git" not in name.lower():
        return False
    for part in name.split("\\"):
        plain = part.split(":")[0].rstrip(" .").lower()
        if plain in (".git", "git~1"):
            return True
    return False
