"""Where the directories of running sandboxes are: in memory, for root.

A sandbox's directory ends with it, and with the machine's uptime at the latest. On a disk, making
and removing its few names takes longer than all else the client does for a start. So the directory
of them all is a link to one on a tmpfs where there is one for root; ordinary users keep theirs with
their other state, since sessions that end clear what they have in memory.
"""

import contextlib
import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

PLACES = ("/run", "/dev/shm")  # noqa: S108 - what is made there is this user's own
"""Where a tmpfs of root's is looked for."""

_MODE = 0o711
_UNSAFE = 0o022


def ready(root: Path, places: Sequence[str] = PLACES) -> None:
    """Make the directory `root` of all sandboxes, or the one that it is a link to. Idempotent.

    What a link leads to is ours alone, or the link is replaced. OSError.
    """
    try:
        target = os.readlink(root)  # noqa: PTH115 - as it is
    except FileNotFoundError:
        _make(root, places)
        return
    except OSError:  # a directory: of a version without links, or there was no tmpfs
        place = _place(places)
        if place is not None:
            with contextlib.suppress(OSError):  # it is in use
                os.rmdir(root)  # noqa: PTH106
                _make(root, (place,))
        return
    with contextlib.suppress(FileExistsError):
        os.mkdir(target, _MODE)  # noqa: PTH102 - once a start
    try:
        safe = _ours(target)
    except FileNotFoundError:  # the last sandbox ended just now, and the next one makes it again
        return
    if not safe:
        with contextlib.suppress(FileNotFoundError):
            root.unlink()
        root.mkdir(mode=_MODE, exist_ok=True)


def ours(root: Path) -> bool:
    """Whether `root`, or what it is a link to, is ours alone, or not there. A link to what somebody
    else made meanwhile, in a place for everybody, is replaced first. OSError."""
    try:
        if _ours(os.readlink(root)):  # noqa: PTH115 - once a use
            return True
    except OSError:  # no link, or nothing is there
        return True
    ready(root)
    return False


def target(root: Path) -> str | None:
    """What `root` is a link to: for the keeper, which removes it when its sandbox was the last
    there. None for a directory, which stays."""
    try:
        return os.readlink(root)  # noqa: PTH115
    except OSError:
        return None


def leave(root: Path) -> None:
    """Remove what `root` is a link to, with the files in it, when no sandbox is there. Idempotent.

    The keeper of the last sandbox has done that already, except where none was started.
    """
    with contextlib.suppress(OSError):
        place = os.readlink(root)  # noqa: PTH115 - once an end
        try:
            os.rmdir(place)  # noqa: PTH106
        except OSError:
            if os.stat(place).st_nlink > 2:  # noqa: PTH116 - each directory has a link to it
                return
            for name in os.listdir(place):  # noqa: PTH208
                os.unlink(f"{place}/{name}")  # noqa: PTH108
            os.rmdir(place)  # noqa: PTH106


def _make(root: Path, places: Sequence[str]) -> None:
    place = _place(places)
    if place is None:
        root.mkdir(mode=_MODE, exist_ok=True)
        return
    target = tempfile.mkdtemp(prefix="ringfence-", dir=place)
    os.chmod(target, _MODE)  # noqa: PTH101 - just made
    try:
        root.symlink_to(target)
    except OSError as error:
        os.rmdir(target)  # noqa: PTH106
        if not isinstance(error, FileExistsError):  # else another process was faster
            raise


def _place(places: Sequence[str]) -> str | None:
    if os.geteuid() != 0:
        return None
    return next((place for place in places if _in_memory(place)), None)


def _in_memory(place: str) -> bool:
    """Whether it is the root of a file system of its own that only a reboot empties."""
    wanted = f" {place} "
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            if wanted in line and line.split()[1:3] == [place, "tmpfs"]:
                return os.access(place, os.W_OK)
    return False


def _ours(target: str) -> bool:
    status = os.lstat(target)
    mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return mine and not status.st_mode & _UNSAFE
