"""What a walk looked at: as long as all of it is the same, another walk would choose the same."""

import hashlib
import os
import time
from collections.abc import Sequence

from ringfence.workspace.beneath import open_directory, open_regular

_IGNORED_BYTES = 1 << 20
_PATH_BYTES = 4095
"""Of what the kernel takes as one path: a directory further down cannot be listed again."""
_NEW_NANOSECONDS = 2_000_000_000
"""Another link that takes the place of one so young may have its inode and its times."""


class Seen:
    """It grows while the walk goes on.

    directories: those that were listed, in order. names: those in each, as `ringfence-guest --list`
    writes them. rows: see `rows`, one for each name. visible: a byte for each, 1 where it goes in.
    ignored: the files of patterns that were asked for, and what they held, as `digest_of` tells it.
    told: whether that is all that decided.
    """

    def __init__(self) -> None:
        self.directories: list[str] = []
        self.names: list[str] = []
        self.rows = bytearray()
        self.visible = bytearray()
        self.ignored: dict[str, bytes | None] = {}
        self.told = True
        self._new = time.time_ns() - _NEW_NANOSECONDS

    def listed(self, path: str, names: Sequence[str], rows: bytes) -> None:
        """Take down a directory, and the names in it with their rows."""
        if len(os.fsencode(path)) > _PATH_BYTES:
            self.told = False
        else:
            self.directories.append(path)
        self.rows += rows
        self.names.append("".join(f"{name}\0" for name in names) + "\0")

    def link(self, ctime: int) -> None:
        """Take down that a symbolic link was read, which its row must tell from any other."""
        self.told = self.told and ctime < self._new

    def choose(self, chosen: Sequence[bool]) -> None:
        """Let only some of what is visible be: in its order, whether it still is."""
        wanted = iter(chosen)
        self.visible = bytearray(one and next(wanted) for one in self.visible)


def digest_of(text: str | None) -> bytes | None:
    """What tells the text of a file of patterns from another; a tree may have many long ones."""
    return None if text is None else hashlib.sha256(os.fsencode(text)).digest()


def patterns_in(root: int, path: str) -> str | None:
    """The text of a file of patterns below the directory `root`, as far as it counts; None when it
    is missing, no regular file, behind a link or not ours to read."""
    above, _, name = path.rpartition("/")
    try:
        directory = open_directory(root, above)
    except OSError:
        return None
    try:
        descriptor = open_regular(directory, name)
    except OSError:
        return None
    finally:
        os.close(directory)
    with os.fdopen(descriptor, "rb") as file:
        return os.fsdecode(file.read(_IGNORED_BYTES)).removeprefix("\ufeff")  # as git does
