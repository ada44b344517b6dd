"""Has a sandbox's cgroup of version 2 give controllers to those below it.

It may only while no process is in itself: those of the sandbox are moved to a leaf, in which
the children of each are born from then on. The sandbox's limits stay where they are, above it.
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterable
from pathlib import Path

from ringfence.metrics.places import GUEST_LEAF, read_text

CONTROLLERS = ("memory", "pids", "io")
"""Those that count for a command. Not cpu: `cpu.stat` counts without it, and with it a command's
family would compete as one with all else in the sandbox."""

_SECONDS = 5.0
_GONE = (errno.ESRCH, errno.ENOENT)


def events_are_local() -> bool:
    """Whether a cgroup's `memory.events` leaves out those below it, where the tree was mounted so:
    kills in the leaf would not be counted for the sandbox."""
    return any(
        "memory_localevents" in line.rpartition(" ")[2].split(",")
        for line in read_text("/proc/self/mountinfo").splitlines()
        if " - cgroup2 " in line
    )


def offer(directory: str) -> None:
    """Have the cgroup at `directory` offer `CONTROLLERS` to those below it. Idempotent.

    OSError: EAGAIN when its processes start others faster than they can be moved for 5 s,
    EOPNOTSUPP when it has none of the controllers, ENOENT or ENODEV when it is gone.
    """
    control = Path(directory, "cgroup.subtree_control")
    held = set(Path(directory, "cgroup.controllers").read_text().split())
    wanted = [name for name in CONTROLLERS if name in held]
    if not wanted:
        raise OSError(errno.EOPNOTSUPP, "no controller that counts is given to it")
    if set(wanted) <= set(control.read_text().split()):
        return
    leaf = Path(directory, GUEST_LEAF)
    with contextlib.suppress(FileExistsError):
        leaf.mkdir()
    until = time.monotonic() + _SECONDS
    while True:
        _move(directory, str(leaf))
        try:
            control.write_text(" ".join(f"+{name}" for name in wanted))
        except OSError as error:  # a process was started meanwhile by one that was not moved yet
            if error.errno != errno.EBUSY:
                raise
        else:
            return
        if time.monotonic() > until:
            raise OSError(errno.EAGAIN, "its processes start others faster than they can be moved")


def _move(directory: str, leaf: str) -> None:
    procs = os.open(f"{leaf}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        for pid in _processes(directory):
            try:
                os.write(procs, pid.encode())
            except OSError as error:
                if error.errno not in _GONE:
                    raise
    finally:
        os.close(procs)


def _processes(directory: str) -> Iterable[str]:
    """Those in it, each looked at again just before: a number may be another process's by then."""
    ending = f"/{Path(directory).name}"
    for pid in read_text(f"{directory}/cgroup.procs").split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines = read_text(f"/proc/{pid}/cgroup").splitlines()
            if any(line.startswith("0::") and line.endswith(ending) for line in lines):
                yield pid
