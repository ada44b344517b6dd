"""Owners and modes: those of the original, or others by choice."""

import os
from contextlib import suppress
from dataclasses import dataclass

from ringfence.errors import StateError
from ringfence.workspace.entries import DIRECTORY, Entry, entry_of


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
