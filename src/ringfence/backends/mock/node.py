"""One file, directory or link of the mock's tree, and who may do what with it."""

import errno
import os
import stat
import time
from dataclasses import dataclass, field

from ringfence.guest.protocol import Cred, Stat

READ, WRITE, SEARCH = 4, 2, 1
"""What `Node.allows` is asked for."""


@dataclass(slots=True, eq=False)
class Node:
    """A file (data), a directory (entries) or a symbolic link (target); mode has the type."""

    mode: int
    uid: int
    gid: int
    inode: int
    data: bytearray = field(default_factory=bytearray)
    entries: dict[bytes, "Node"] = field(default_factory=dict)
    target: bytes = b""
    mtime_ns: int = field(default_factory=time.time_ns)
    links: int = 1

    @property
    def is_directory(self) -> bool:
        """Whether it is one."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    def size(self) -> int:
        """Bytes, as stat(2) counts them."""
        return len(self.target) if self.is_link else len(self.data)

    def stat(self) -> Stat:
        """What stat(2) would say."""
        size = self.size()
        return Stat(
            self.mode,
            self.uid,
            self.gid,
            size,
            -(-size // 512),
            self.mtime_ns,
            self.inode,
            self.links,
        )

    def allows(self, who: Cred, wanted: int) -> bool:
        """Whether the permission bits let `who` do all of `wanted`."""
        if who.uid == self.uid:
            bits = self.mode >> 6
        elif who.gid == self.gid or self.gid in who.groups:
            bits = self.mode >> 3
        else:
            bits = self.mode
        return bits & wanted == wanted

    def check(self, who: Cred, wanted: int) -> None:
        """EACCES unless allowed."""
        if not self.allows(who, wanted):
            raise failure(errno.EACCES)


def failure(number: int) -> OSError:
    """The OSError of an errno."""
    return OSError(number, os.strerror(number))
