"""Frames that bring descriptors with them, on a session's socket."""

import array
import os
import select
import socket
from collections.abc import Sequence


def is_writable(descriptor: int) -> bool:
    """Whether a socket takes bytes now."""
    asked = select.poll()
    asked.register(descriptor, select.POLLOUT)
    return bool(asked.poll(0))


def send(descriptor: int, data: bytes, brought: Sequence[int]) -> int:
    """Write the beginning of `data` to a socket, at least a byte, with which descriptors go; how
    many bytes that were. OSError."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", brought))]
    with socket.socket(fileno=os.dup(descriptor)) as stream:
        return stream.sendmsg([data], rights)
