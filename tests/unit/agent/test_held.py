"""What a host gets of a held command that it did not read for a while, and takes up again."""

import struct
from pathlib import Path

from ringfence.guest.protocol import NO_CAP, OUTPUT_WINDOW, Answer, Ask

from .raw import Guest, Raw, until
from .test_life import HELD

LINE = 16
COUNTING = f"exec seq -f %0{LINE - 1}.0f 0 1000000"
"""Each line's number says where it begins."""


def standing(guest: Guest, caps: tuple[int, int] = (NO_CAP, NO_CAP)) -> int:
    """A held command that counts until nobody takes what it says; its id."""
    held = guest.raw.start("sh", "-c", COUNTING, flags=HELD, caps=caps)
    pid = guest.raw.started(held)
    seen = 0
    while seen < OUTPUT_WINDOW:
        seen += len(guest.raw.frame()[2]) - 8
    state = Path(f"/proc/{guest.host_pid(pid)}/stat")
    until(lambda: state.read_text().rpartition(")")[2].split()[0] == "S", "its pipe is full")
    return held


def attach(raw: Raw, held: int, offset: int) -> None:
    raw.send(Ask.ATTACH, held, struct.pack("<QQ", offset, 0))
    raw.started(held)


def output(raw: Raw, held: int) -> tuple[int, bytes]:
    """An OUT of this id, which must be the next frame: its offset and bytes."""
    op, answered, payload = raw.frame()
    assert (op, answered) == (Answer.OUT, held)
    return struct.unpack_from("<Q", payload)[0], payload[8:]


def counted(offset: int, size: int) -> bytes:
    """What the command says from `offset` on."""
    lines = range(offset // LINE, (offset + size) // LINE + 1)
    text = b"".join(b"%0*d\n" % (LINE - 1, number) for number in lines)
    return text[offset % LINE :][:size]


def read_to_end(raw: Raw, held: int, kept: int) -> None:
    """The last that was kept of all there was, and then its end."""
    at = kept - OUTPUT_WINDOW
    while at < kept:
        offset, data = output(raw, held)
        assert (offset, data) == (at, counted(at, len(data)))
        at += len(data)
    assert raw.ending(held).stdout == b""


def test_who_attaches_behind_the_output_of_one_that_stands_still_gets_what_follows(
    guest: Guest,
) -> None:
    """It takes up what it has itself, too: nobody acknowledges what waited for room."""
    raw = guest.raw
    held = standing(guest)
    attach(raw, held, 2**62)
    offset, data = output(raw, held)
    assert offset >= OUTPUT_WINDOW
    assert data == counted(offset, len(data))


def test_one_that_is_killed_standing_still_keeps_the_last_it_said(guest: Guest) -> None:
    """Its end does not wait for who reads nothing, and comes behind all output to who does."""
    raw = guest.raw
    held = standing(guest)
    raw.send(Ask.KILL, held)
    total = raw.ending(held).stdout_total
    assert total > OUTPUT_WINDOW
    attach(raw, held, 0)
    read_to_end(raw, held, total)


def test_of_one_that_is_killed_standing_still_nothing_is_kept_beyond_its_cap(guest: Guest) -> None:
    """What comes beyond takes no place of what is kept. How full its pipe is, is chance."""
    raw = guest.raw
    cap = OUTPUT_WINDOW + 70_000
    total = 0
    while total <= cap:
        held = standing(guest, caps=(cap, 0))
        raw.send(Ask.KILL, held)
        total = raw.ending(held).stdout_total
    attach(raw, held, 0)
    read_to_end(raw, held, cap)
