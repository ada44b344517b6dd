"""A host that is gone in the midst of a frame, at whatever byte, leaves nothing behind in the guest."""

import struct
from pathlib import Path

from ringfence.guest.protocol import HEADER, Ask, Cred, cred, string
from tests.conftest import require_root
from tests.unit.agent.raw import Raw, exec_payload, until

from . import sanitized, storm

FIRST_ID = 100_000
AT_ONCE = 40
"""Sessions between two looks at what is left: each may leave a held command."""


def frame(op: int, operation_id: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(len(payload) + 5, op, operation_id) + payload


def session(host: storm.Storm, held: int) -> bytes:
    """All that the host says: a held command with input, another one, a file, and the end of all."""
    hello = struct.pack("<I", 1) + bytes(range(16)) + bytes(16) + struct.pack("<IQB", 60_000, 0, 1)
    mark = (host.guest.name,)
    begun = cred(Cred(1000, 1000)) + string(bytes(host.files) + b"/file")
    written = begun + struct.pack("<IIQ", 3, 0o644, 0)
    return b"".join((
        frame(Ask.HELLO, 0, hello),
        frame(Ask.EXEC, held, exec_payload("cat", flags=32 | 8 | 1, env=mark)),
        frame(Ask.EXEC, held + 1, exec_payload("sleep", "9", flags=32 | 512, env=mark)),
        frame(Ask.STDIN, held, b"input"),
        frame(Ask.WRITE, held + 2, written + b"da"),
        frame(Ask.FILE_DATA, held + 2, b"ta"),
        frame(Ask.ATTACH, held, struct.pack("<QQB", 0, 0, 1)),
        frame(Ask.RESIZE, held, struct.pack("<HH", 5, 6)),
        frame(Ask.SIGNAL, held + 1, struct.pack("<IB", 18, 0)),
        frame(Ask.ACK, held, struct.pack("<BQ", 1, 5)),
        frame(Ask.FILE_END, held + 2, b"\0"),
        frame(Ask.STDIN, held),
        frame(Ask.KILL, held + 1),
        frame(Ask.FORGET, held),
    ))  # fmt: skip


def test_a_session_that_is_cut_at_any_byte_leaves_nothing(tmp_path: Path) -> None:
    require_root()
    with storm.begun(sanitized.guest(tmp_path), seed=1) as host:
        host.settle()
        descriptors = host.steady_descriptors()
        for cut in range(len(session(host, FIRST_ID)) + 1):
            host.raw.stream.close()
            host.raw = Raw(host.accept())
            host.raw.send_bytes(session(host, FIRST_ID + 3 * cut)[:cut])
            if cut % AT_ONCE == 0:
                host.settle()
        host.settle()
        until(lambda: host.descriptors() <= descriptors, "no more descriptors than before")
