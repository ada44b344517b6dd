"""What the kernel keeps of an overlay that a daemon mounted for a client who is not root.

Where a file was deleted inside, a device of root's stays in the overlay's `work/work`, which only
root may change. The kernel empties it when the next overlay is mounted on it.
"""

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from ringfence.workspace import mounts

_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)


def emptying(directory: Path) -> Mapping[str, str] | None:
    """Options of a volume (type, device, o) that the daemon has to mount once before `clean` can
    remove the workspace `directory`; None when it can do so already. Its sandbox must be gone. It
    blocks.
    """
    work = directory / "work"
    if os.geteuid() == 0 or not _is_full(work / "work"):
        return None
    beside = directory / "emptying"
    lower, upper = beside / "lower", beside / "upper"
    try:
        for place in (beside, lower, upper):
            place.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:  # another client has removed the workspace meanwhile
        return None
    options = mounts.overlay_options([lower], upper, work, user=True)
    return {"type": "overlay", "device": "overlay", "o": options}


def _is_full(place: Path) -> bool:
    """Whether a directory is somebody else's and not empty; an empty one is removed."""
    try:
        owner = place.stat().st_uid
        place.rmdir()
    except OSError as error:
        return error.errno in _NOT_EMPTY and owner != os.geteuid()
    return False
