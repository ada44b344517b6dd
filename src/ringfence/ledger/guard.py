"""A process that outlives its clients and reaps what they leave, even when nobody comes back.

One for each state directory. It ends by itself when nothing is left to watch.
"""

import asyncio
import contextlib
import fcntl
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ringfence.backends import exhausted
from ringfence.errors import ResourceExhaustedError

if TYPE_CHECKING:
    from ringfence.ledger.store import Ledger

LOCK = "guard.lock"
_TICK_SECONDS = 1.0
_PROBE_SECONDS = 30.0
_QUIET_SECONDS = 10.0
_LOCK_FD = 3


def ensure(directory: Path) -> None:
    """Start the guard of a state directory unless one is there.

    ResourceExhaustedError when there is no descriptor, process or room for it.
    """
    start = missing(directory)
    if start is not None:
        start()


def missing(directory: Path) -> Callable[[], None] | None:
    """What starts the guard, which takes some milliseconds, and is to be called; None where one is
    there. Both raise as `ensure`."""
    with _told(directory):
        lock = _lock(directory / LOCK)
    return None if lock is None else functools.partial(_begin, directory, lock)


def _begin(directory: Path, lock: int) -> None:
    # The lock goes to the new process with its descriptor, so that whoever asks next, before that
    # process has even begun to read its program, starts no other.
    with _told(directory):
        try:
            pid = _start(directory, lock)
        finally:
            os.close(lock)
    threading.Thread(target=_wait, args=(pid,), name="ringfence-guard", daemon=True).start()


@contextlib.contextmanager
def _told(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = exhausted.told(error)
        if what is None:
            raise
        raise ResourceExhaustedError(
            f"the guard of {directory} cannot be started: {what}", op="ledger"
        ) from None


def _start(directory: Path, lock: int) -> int:
    arguments = [sys.executable, "-m", "ringfence.ledger.guard", str(directory), str(_LOCK_FD)]
    null = os.open(os.devnull, os.O_RDWR)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)]
        actions.append((os.POSIX_SPAWN_DUP2, lock, _LOCK_FD))
        return os.posix_spawn(
            sys.executable,
            arguments,
            os.environ,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )
    finally:
        os.close(null)


def _wait(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _lock(path: Path) -> int | None:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


async def watch(directory: Path) -> None:
    """Sweep until nothing has been left to watch for a while, or the directory is gone."""
    from ringfence.ledger.store import Ledger

    ledger = Ledger(directory / "ledger.sqlite")
    probed = quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < _QUIET_SECONDS and os.access(ledger.path, os.W_OK):
        probe = time.monotonic() - probed >= _PROBE_SECONDS
        probed = time.monotonic() if probe else probed
        if await _sweep(ledger, probe=probe):
            quiet_since = time.monotonic()
        await asyncio.sleep(_TICK_SECONDS)


async def _sweep(ledger: "Ledger", *, probe: bool) -> bool:
    """Reap once; whether something is left to watch. A full disk, or no descriptor, ends no guard:
    whoever comes back may do so long after the disk has room again."""
    from ringfence.ledger.reaper import reap

    try:
        await reap(ledger, probe=probe)
        return bool(ledger.claims())
    except (ResourceExhaustedError, OSError):
        return True


def _left(directory: Path) -> bool:
    """Whether there is something to watch: who came at the last moment saw the lock held."""
    from ringfence.ledger.store import Ledger

    path = directory / "ledger.sqlite"
    return os.access(path, os.W_OK) and bool(Ledger(path).claims())


def main() -> None:
    """`python -m ringfence.ledger.guard DIRECTORY [LOCK]`. LOCK: a descriptor that holds it."""
    directory = Path(sys.argv[1])
    os.chdir("/")
    lock = int(sys.argv[2]) if len(sys.argv) > 2 else _lock(directory / LOCK)
    while lock is not None:
        os.set_inheritable(lock, False)
        asyncio.run(watch(directory))
        os.close(lock)
        lock = _lock(directory / LOCK) if _left(directory) else None


if __name__ == "__main__":
    # What whoever started us had open besides, such as a lock of a shell, is not for us to hold.
    os.closerange(_LOCK_FD + 1, os.sysconf("SC_OPEN_MAX"))
    main()
