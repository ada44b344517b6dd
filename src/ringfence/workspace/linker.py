"""Makes hard links: the program that `linking` starts, which imports nothing of ours.

argv: descriptors of the tree and of the copy. Standard input: pieces written by marshal, each a
directory's path, the names of directories to make in it, the names of files to link, and the inodes
that these must have. Standard output: by directory, the names of files that cannot be linked, as
another user's; nothing where there are none. It ends with a status other than 0 at the first other
thing that cannot be done.
"""

import errno
import marshal
import os
import sys
from typing import BinaryIO

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_VERSION = 2


def _opened(root: int, path: str) -> int:
    """A descriptor of a directory below `root`, reached without following a link."""
    current = os.open(".", _FLAGS, dir_fd=root)
    for name in path.split("/") if path else ():
        try:
            below = os.open(name, _FLAGS, dir_fd=current)
        finally:
            os.close(current)
        current = below
    return current


def link(source: int, target: int, pieces: BinaryIO) -> dict[str, list[str]]:
    """Make what the pieces name; what could not be linked. OSError, for a file that is another one
    meanwhile too."""
    refused: dict[str, list[str]] = {}
    while True:
        try:
            path, directories, files, inodes = marshal.load(pieces)  # noqa: S302 - our parent's own bytes
        except EOFError:
            return refused
        there, here = _opened(source, path), _opened(target, path)
        for name in directories:
            os.mkdir(name, 0o700, dir_fd=here)
        left = set()
        for name in files:
            try:
                os.link(name, name, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
            except OSError:
                left.add(name)
        os.close(there)
        with os.scandir(here) as found:
            # a new symbolic link may have the inode that a file had
            made = {e.name: e.inode() for e in found if e.is_file(follow_symlinks=False)}
        os.close(here)
        if left:
            refused[path] = list(left)
            inodes = [
                None if name in left else inode for name, inode in zip(files, inodes, strict=True)
            ]
        if [made.get(name) for name in files] != inodes:
            raise OSError(errno.ESTALE, "a file was replaced meanwhile", path)


if __name__ == "__main__":
    try:
        told = link(int(sys.argv[1]), int(sys.argv[2]), sys.stdin.buffer)
    except OSError:
        sys.exit(1)
    if told:
        marshal.dump(told, sys.stdout.buffer, _VERSION)
