"""How many terminals a container may have.

The kernel counts them for all of the host (kernel.pty.max), and the Engine mounts a /dev/pts
without a number: one sandbox could hold all that are left.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

MOST = 256
_PLACE = "/dev/pts"
_FSPICK, _FSCONFIG = 433, 431
_EMPTY_PATH, _SET_STRING, _RECONFIGURE = 8, 1, 7


def hold_terminals(pid: int) -> None:
    """Limit the terminals of the container of process `pid`, which has begun nothing yet, where
    this user may: root alone can, on Linux 5.2 and newer."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        place = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_CLOEXEC)
        stack.callback(os.close, place)
        for name in _PLACE.split("/")[1:]:  # no link of an image's leads to the host's own
            place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
            stack.callback(os.close, place)
        options = _options(Path(f"/proc/{pid}/mountinfo").read_text())
        if options and os.fstat(place).st_dev != os.stat(_PLACE).st_dev:  # noqa: PTH116 - once a start
            _reconfigure(place, {**options, "max": str(MOST)}, stack)


def _options(mountinfo: str) -> Mapping[str, str]:
    """The options of a container's devpts, which are forgotten when they are not said again; empty
    where it has none of its own."""
    found: Mapping[str, str] = {}
    for line in mountinfo.splitlines():
        mount, _, filesystem = line.partition(" - ")
        if mount.split(" ")[4] == _PLACE:
            kind, _, options = filesystem.split(" ")
            pairs = [one.split("=") for one in options.split(",") if "=" in one]
            found = dict(pairs) if kind == "devpts" else {}
    return found


def _reconfigure(place: int, options: Mapping[str, str], stack: contextlib.ExitStack) -> None:
    mount = _call(_FSPICK, place, b"", _EMPTY_PATH)
    stack.callback(os.close, mount)
    for name, value in options.items():
        _call(_FSCONFIG, mount, _SET_STRING, name.encode(), value.encode(), 0)
    _call(_FSCONFIG, mount, _RECONFIGURE, None, None, 0)


def _call(number: int, *arguments: object) -> int:
    """A system call that no library has. OSError."""
    import ctypes  # a command line that starts nothing has no use for it

    result: int = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
