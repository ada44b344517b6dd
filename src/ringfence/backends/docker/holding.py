"""One client at a time on a stream that any number could attach to, and at a sandbox's door.

The Engine lets every client write to a container's stdin, and shows each what all others get. Who
has the session of a detached sandbox, or opens its door, holds a lock on one byte of a file, chosen
by the sandbox's id. The kernel gives it back when the client ends, however it ends, and nothing is
left to remove.
"""

import asyncio
import fcntl
import hashlib
import os
import struct
import time

from ringfence.backends.door import another
from ringfence.backends.state import state_directory
from ringfence.errors import DeadlineExceededError

_FLOCK = struct.Struct("hhqqi4x")
_LOOK_SECONDS = 0.05


async def hold(sandbox_id: str, seconds: float) -> int:
    """A descriptor that keeps other clients out until it is closed.

    DeadlineExceededError when one of them has it for `seconds`.
    """
    byte = _byte(sandbox_id)
    number = _open()
    try:
        end = time.monotonic() + seconds
        while not _locked(number, byte):
            if time.monotonic() >= end:
                raise DeadlineExceededError("connect: another client holds it", op="connect")
            await asyncio.sleep(_LOOK_SECONDS)
    except BaseException:
        os.close(number)
        raise
    return number


def take(sandbox_id: str) -> int:
    """`hold` without waiting: StateError when another client has it."""
    number = _open()
    try:
        if not _locked(number, _byte(sandbox_id)):
            raise another()
    except BaseException:
        os.close(number)
        raise
    return number


def _byte(sandbox_id: str) -> int:
    return int.from_bytes(hashlib.sha256(sandbox_id.encode()).digest()[:7])


def _open() -> int:
    directory = state_directory() / "docker"
    directory.mkdir(mode=0o700, exist_ok=True)
    return os.open(directory / "sessions.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _locked(number: int, byte: int) -> bool:
    try:
        fcntl.fcntl(number, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    except BlockingIOError:
        return False
    return True
