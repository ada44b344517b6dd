"""The socket that a guest dials: a directory of one sandbox, open only while somebody waits.

The directory is bound read-only into the sandbox. A **door** is its socket, made when a session is
wanted and gone when the guest came. Whoever else dials is dropped: only the sandbox's first
process, known by the kernel's word on the peer, is the guest. One door of a sandbox is open at a
time, by a lock on something that no sandbox sees: a command could take one on what it sees, and
keep everybody out.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Self

from ringfence.backends.base import ProtocolFactory
from ringfence.errors import StateError

NAME = "host.sock"
_CREDENTIALS = struct.Struct("3i")
_BACKLOG = 8


def peer_pid(connection: socket.socket) -> int:
    """The pid of a unix socket's other end, in this pid namespace; 0 when it is not seen here."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(raw)[0]
    return pid


def _is_of(connection: socket.socket, pid: int | Callable[[], int | None]) -> bool:
    """Whether it is that process's; closed when it is not."""
    known = False
    try:
        known = peer_pid(connection) == (pid() if callable(pid) else pid)
    finally:
        if not known:
            connection.close()
    return known


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - twice a start


async def join(connection: socket.socket, factory: ProtocolFactory) -> asyncio.Transport:
    """The stream of a guest that came; it is closed when that fails."""
    try:
        transport, _ = await asyncio.get_running_loop().create_connection(factory, sock=connection)
    except BaseException:
        connection.close()
        raise
    return transport


def lock(directory: Path) -> int:
    """A descriptor that has the lock on a directory, which no sandbox sees, until it is closed.

    StateError when another one has it.
    """
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        raise another() from None
    except BaseException:
        os.close(number)
        raise
    return number


def another() -> StateError:
    """The error where a lock is had by somebody else."""
    return StateError(
        "connect: another session with this sandbox is being opened: one at a time", op="connect"
    )


class Door:
    """A listening socket in a sandbox's directory.

    held: a descriptor of the lock that keeps other doors of the sandbox away; closed with the door.
    """

    def __init__(self, directory: Path, held: int) -> None:
        self._path = f"{directory}/{NAME}"
        self._held = held
        self._directory = -1
        self._socket: socket.socket | None = None
        try:
            self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._socket = self._listen()
        except BaseException:
            self.close()
            raise

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Through the descriptor: a socket's path may not be longer than 107 bytes.
        short = f"/proc/self/fd/{self._directory}/{NAME}"
        try:
            listener.setblocking(False)
            try:
                listener.bind(short)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                _remove(self._path)  # one that was killed left it
                listener.bind(short)
            os.chmod(self._path, 0o666)  # noqa: PTH101, S103 - the guest is another user
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener

    async def accept(self, pid: int | Callable[[], int | None]) -> socket.socket:
        """The connection of the process `pid`, or that it names then; everybody else's is dropped.

        Waits as long as it takes: the caller sets the time. Cancellation leaves the door open.
        """
        listener = self._open()
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            if _is_of(connection, pid):
                return connection

    def fileno(self) -> int:
        """What can be read when somebody dials. StateError when it is closed."""
        return self._open().fileno()

    def accepted(self, pid: int | Callable[[], int | None]) -> socket.socket | None:
        """`accept` without waiting; None when nobody else dials."""
        listener = self._open()
        while True:
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return None
            if _is_of(connection, pid):
                return connection

    def _open(self) -> socket.socket:
        if self._socket is None:
            raise StateError("connect: the door is closed", op="connect")
        return self._socket

    def close(self) -> None:
        """Stop listening and remove the socket. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            _remove(self._path)
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
