"""Directories of the state directory that go with the process that made them.

Their names carry whose they are, so that whoever comes by removes what a killed one left.
"""

import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from ringfence.backends.owner import is_gone, mark

_PREFIX = "ca-"


def own_directory(state: Path) -> "TemporaryDirectory[str]":
    """A directory of this process alone; those of processes that ended are removed. OSError."""
    sweep(state)
    return TemporaryDirectory(prefix=f"{_PREFIX}{mark()}-", dir=state)


def sweep(state: Path, prefix: str = _PREFIX) -> dict[Path, OSError]:
    """Remove those whose process has ended; which could not be removed, and why."""
    left = {}
    for path in state.glob(f"{prefix}*"):
        whose = path.name.removeprefix(prefix).rpartition("-")[0]
        if is_gone(whose, here=True) and (error := remove(path)):
            left[path] = error
    return left


def remove(path: Path) -> OSError | None:
    """Remove a tree of ours, however deep, with directories in it that their owner may not write.

    What cannot be removed stays, for the next who comes by; why it could not be.
    """
    from ringfence.workspace.beneath import DIRECTORY_FLAGS, remove_tree

    try:
        above = os.open(path.parent, DIRECTORY_FLAGS)
        try:
            while os.path.lexists(path):
                with suppress(FileNotFoundError):  # another one removes it, too
                    remove_tree(above, path.name)
        finally:
            os.close(above)
    except OSError as error:
        return error
    return None
