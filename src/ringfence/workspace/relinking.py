"""A frozen tree of hard links that was kept, made ready to become that of the repository as it is
now: what is still right stays where it is, and all else is taken away.

A link of another time is right when it leads to the inode that has its path now: as long as the
link is there, no other file gets that inode.
"""

import os
from collections.abc import Iterable

from ringfence.workspace.beneath import open_directory, remove_tree
from ringfence.workspace.entries import DIRECTORY, Entry
from ringfence.workspace.linking import Begun, is_linked


def keep_right(target: int, entries: Iterable[Entry]) -> Begun:
    """Remove from the tree `target`, a descriptor, whatever `entries` do not have there as a hard
    link or a directory; what is left, for `stage`. OSError. It blocks."""
    device = os.fstat(target).st_dev
    inodes: dict[str, int] = {}
    for entry in entries:
        if entry.kind == DIRECTORY:
            inodes[entry.path] = 0
        elif is_linked(entry) and entry.device == device:
            inodes[entry.path] = entry.inode
    begun: Begun = {}
    waiting = [""]
    while waiting:
        path = waiting.pop()
        directory = open_directory(target, path)
        try:
            _open_up(directory)
            begun[path] = _kept_files(directory, path, inodes, waiting)
        finally:
            os.close(directory)
    return begun


def _open_up(directory: int) -> None:
    """Let its owner write in it; `stage` gives it its mode again."""
    mode = os.fstat(directory).st_mode & 0o7777
    if mode & 0o700 != 0o700:
        os.fchmod(directory, mode | 0o700)


def _kept_files(directory: int, path: str, inodes: dict[str, int], waiting: list[str]) -> list[str]:
    """The names of the files that stay in one directory. waiting: gets the directories that do."""
    prefix = f"{path}/" if path else ""
    with os.scandir(directory) as found:
        listed = [(e.name, e.inode(), e.is_dir(follow_symlinks=False)) for e in found]
    names = []
    for name, inode, is_directory in listed:
        wanted = inodes.get(prefix + name)
        if is_directory and wanted == 0:
            waiting.append(prefix + name)
        elif not is_directory and wanted == inode:
            names.append(name)
        else:
            remove_tree(directory, name)
    return names
