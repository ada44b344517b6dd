"""A writable layer copied into another directory, whiteouts and opaque marks included."""

import errno
import os
import stat
from contextlib import suppress

from ringfence.workspace.beneath import open_directory
from ringfence.workspace.entries import DIRECTORY, entry_of
from ringfence.workspace.ownership import Ownership
from ringfence.workspace.putting import Stage

_DEEPEST = 4000
"""Bytes of the longest path that a layer may hold to be copied."""


def copy_layer(source: int, target: int, opaque: str) -> None:
    """Copy all below the directory `source` into the empty `target`, as overlay's layers are:
    whiteouts and opaque marks too. Other devices, FIFOs and sockets are left out. OSError."""
    work = Stage(source, target, Ownership(), links=False)
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
                if len(os.fsencode(path)) > _DEEPEST:
                    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
                if _layer_entry(work, path, name):
                    waiting.append(path)
        for path in reversed(done):
            _layer_directory(work, path, opaque)
    finally:
        work.close()


def _layer_entry(work: Stage, path: str, name: str) -> bool:
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


def _layer_directory(work: Stage, path: str, opaque: str) -> None:
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
