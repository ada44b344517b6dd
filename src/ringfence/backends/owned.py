"""Directories of the state directory that go with the process that made them.

Their names carry whose they are, so that whoever comes by removes what a killed one left.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from ringfence.backends.owner import is_gone, mark

_PREFIX = "ca-"


def own_directory(state: Path) -> "TemporaryDirectory[str]":
    """A directory of this process alone; those of processes that ended are removed. OSError."""
    sweep(state)
    return TemporaryDirectory(prefix=f"{_PREFIX}{mark()}-", dir=state)


def sweep(state: Path) -> None:
    """Remove those whose process has ended."""
    for path in state.glob(f"{_PREFIX}*"):
        whose = path.name.removeprefix(_PREFIX).rpartition("-")[0]
        if is_gone(whose, here=True):
            shutil.rmtree(path, ignore_errors=True)
