"""Directories of the state directory that go with the process that made them.

Their names carry whose they are, so that whoever comes by removes what a killed one left.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from ringfence.backends.owner import is_gone, mark

_PREFIX = "ca-"


def own_directory(state: Path) -> "TemporaryDirectory[str]":
    """A directory of this process alone; those of processes that ended are removed. OSError."""
    sweep(state)
    return TemporaryDirectory(prefix=f"{_PREFIX}{mark()}-", dir=state)


def sweep(state: Path, prefix: str = _PREFIX) -> None:
    """Remove those whose process has ended."""
    for path in state.glob(f"{prefix}*"):
        whose = path.name.removeprefix(prefix).rpartition("-")[0]
        if is_gone(whose, here=True):
            remove(path)


def remove(path: Path) -> None:
    """Remove a tree of ours, with directories in it that their owner may not write."""
    for place, names, _ in os.walk(path):
        for name in names:
            below = Path(place, name)
            with suppress(OSError):  # another one removes it, too
                if not below.is_symlink():
                    below.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)
