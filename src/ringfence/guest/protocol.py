"""The guest protocol: its numbers, its values, and the packing of frames.

It is described in docs/guest-protocol.md; the names here are its names.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from ringfence.errors import InvalidSpecError

VERSION: Final = 1
MARKER_BYTES: Final = 16
HOST_FRAME_CAP: Final = 4 * 1024 * 1024 + 5
"""The longest `length` a guest accepts."""
GUEST_FRAME_CAP: Final = 1024 * 1024 + 5
"""The longest `length` a host accepts."""
OUTPUT_WINDOW: Final = 1024 * 1024
INPUT_WINDOW: Final = 256 * 1024
FILE_WINDOW: Final = 4 * 1024 * 1024
FORWARD_WINDOW: Final = 1024 * 1024
GUEST_IDS: Final = 2**31
"""Ids from here up are chosen by the guest, those below by the host."""
NO_CAP: Final = 2**64 - 1
UNKNOWN: Final = 2**64 - 1

STDOUT: Final = 1
STDERR: Final = 2

HEADER: Final = struct.Struct("<IBI")
U8: Final = struct.Struct("<B")
U16: Final = struct.Struct("<H")
U32: Final = struct.Struct("<I")
U64: Final = struct.Struct("<Q")
EXIT: Final = struct.Struct("<iBBII13Q")
STAT: Final = struct.Struct("<IIIQQqQI")
HELLO_TAIL: Final = struct.Struct("<IQIQQ")
TOLD: Final = struct.Struct("<IBQQ")
"""STARTED, for who asked in ATTACH to be told of stdin."""


class Ask:
    """What the host sends."""

    HELLO: Final = 0x01
    PING: Final = 0x02
    LEASE: Final = 0x03
    SHUTDOWN: Final = 0x04
    KILL_ALL: Final = 0x05
    USER: Final = 0x06
    LIST: Final = 0x07
    FILTER: Final = 0x08
    CPU_TIME: Final = 0x09
    SPACE: Final = 0x0A
    EXEC: Final = 0x10
    STDIN: Final = 0x11
    ACK: Final = 0x12
    SIGNAL: Final = 0x13
    KILL: Final = 0x14
    RESIZE: Final = 0x15
    ATTACH: Final = 0x16
    FORGET: Final = 0x17
    STAT: Final = 0x20
    LIST_DIR: Final = 0x21
    READ: Final = 0x22
    WRITE: Final = 0x23
    FILE_DATA: Final = 0x24
    FILE_END: Final = 0x25
    MKDIR: Final = 0x26
    REMOVE: Final = 0x27
    RENAME: Final = 0x28
    CHMOD: Final = 0x29
    COPY: Final = 0x2A
    SYMLINK: Final = 0x2B
    READLINK: Final = 0x2C
    WATCH: Final = 0x2D
    CANCEL: Final = 0x2E
    WALK: Final = 0x2F
    LISTEN: Final = 0x30
    CONNECT: Final = 0x31
    CLOSE_LISTENER: Final = 0x32
    SEND: Final = 0x33
    RESET: Final = 0x34


class Answer:
    """What the guest sends."""

    HELLO: Final = 0x41
    PONG: Final = 0x42
    DONE: Final = 0x43
    FAIL: Final = 0x44
    USER: Final = 0x45
    LIST: Final = 0x46
    SPACE: Final = 0x47
    STARTED: Final = 0x50
    OUT: Final = 0x51
    ERR: Final = 0x52
    STDIN_ACK: Final = 0x53
    EXIT: Final = 0x54
    DATA: Final = 0x60
    ENTRIES: Final = 0x61
    EVENT: Final = 0x62
    SIZE: Final = 0x63
    ACCEPT: Final = 0x70
    RECEIVED: Final = 0x71
    CLOSED: Final = 0x72


class Feature:
    """Bits of HELLO's features."""

    SUBREAPER: Final = 1 << 0
    PTY: Final = 1 << 1
    SETFSUID: Final = 1 << 2
    OOM_COUNTER: Final = 1 << 3
    PIDFD: Final = 1 << 4
    WATCH: Final = 1 << 5
    FORWARD: Final = 1 << 6
    FILTER: Final = 1 << 7
    DESCRIPTORS: Final = 1 << 8
    ATTACH_STDIN: Final = 1 << 9
    TELL_START: Final = 1 << 10
    SPACE: Final = 1 << 11


class ExecFlag:
    """Flags of EXEC. From CGROUPS_SHIFT on stands how many cgroups the command begins in, in three
    bits."""

    STDIN_OPEN: Final = 1
    PTY: Final = 2
    STDERR_TO_STDOUT: Final = 4
    HOLD: Final = 8
    KILL_ON_CAP: Final = 16
    SEARCH_PATH: Final = 32
    CGROUPS_SHIFT: Final = 6
    TELL_START: Final = 512


class Told:
    """Bits of what STARTED says of an exec that was attached to."""

    STDIN_OPEN: Final = 1
    STDIN_GIVEN: Final = 2
    TERMINAL: Final = 4


class WriteFlag:
    """Flags of WRITE."""

    CREATE: Final = 1
    TRUNCATE: Final = 2
    APPEND: Final = 4
    EXCLUSIVE: Final = 8
    PARENTS: Final = 16
    ATOMIC: Final = 32
    WHOLE: Final = 64


class Cred(NamedTuple):
    """Whom the guest acts as: ids inside the sandbox."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Stat(NamedTuple):
    """What stat(2) says. size: bytes; blocks: of 512 bytes; mtime_ns: since the epoch."""

    mode: int
    uid: int
    gid: int
    size: int
    blocks: int
    mtime_ns: int
    inode: int
    links: int


class Failure(NamedTuple):
    """A FAIL frame: the guest's errno, where it happened, and its words (never to be parsed)."""

    errno: int
    stage: int
    detail: str


def head(op: int, operation_id: int, size: int) -> bytes:
    """A frame's begin, for a payload of `size` bytes. InvalidSpecError over the guest's cap."""
    check_size(size)
    return HEADER.pack(size + 5, op, operation_id)


def check_size(size: int) -> None:
    """InvalidSpecError when a payload of `size` bytes is over the guest's cap of a frame."""
    length = size + 5
    if length > HOST_FRAME_CAP:
        raise InvalidSpecError(
            f"the request takes {length} bytes, over the {HOST_FRAME_CAP} of one frame: pass less "
            "in args, env and names, and large data through stdin or a file",
            context={"bytes": length, "limit": HOST_FRAME_CAP},
        )


def string(data: bytes) -> bytes:
    """A `str` of the protocol."""
    return U32.pack(len(data)) + data


def strings(items: Sequence[bytes]) -> bytes:
    """A `list` of the protocol."""
    pack = U32.pack
    parts = [pack(len(items))]
    for item in items:
        parts.append(pack(len(item)))
        parts.append(item)
    return b"".join(parts)


def cred(who: Cred) -> bytes:
    """A `cred` of the protocol."""
    uid, gid, groups = who
    return struct.pack(f"<III{len(groups)}I", uid, gid, len(groups), *groups)
