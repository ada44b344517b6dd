"""What a host gets of a held command that it did not read for a while, and takes up again."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.guest.protocol import NO_CAP, OUTPUT_WINDOW, Answer, Ask

from .raw import HELD, Guest, Raw, accept, listen, until
from .test_life import again

LINE = 16
COUNTING = f"exec seq -f %0{LINE - 1}.0f 0 1000000"
"""Each line's number says where it begins."""


def standing(guest: Guest, caps: tuple[int, int] = (NO_CAP, NO_CAP), where: str = "") -> int:
    """A held command that counts until nobody takes what it says; its id."""
    held = guest.raw.start("sh", "-c", COUNTING + where, flags=HELD, caps=caps)
    pid = guest.raw.started(held)
    seen = 0
    while seen < OUTPUT_WINDOW:
        seen += len(guest.raw.frame()[2]) - 8
    state = Path(f"/proc/{guest.host_pid(pid)}/stat")
    until(lambda: state.read_text().rpartition(")")[2].split()[0] == "S", "its pipe is full")
    return held


def attach(raw: Raw, held: int, offset: int) -> None:
    raw.send(Ask.ATTACH, held, struct.pack("<QQ", offset, offset))
    raw.started(held)


def output(raw: Raw, held: int, kind: int = Answer.OUT) -> tuple[int, bytes]:
    """An OUT or ERR of this id, which must be the next frame: its offset and bytes."""
    op, answered, payload = raw.frame()
    assert (op, answered) == (kind, held)
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


@pytest.mark.parametrize(("where", "kind"), [("", Answer.OUT), (" >&2", Answer.ERR)])
def test_who_attaches_behind_the_output_of_one_that_stands_still_gets_what_follows(
    guest: Guest, where: str, kind: int
) -> None:
    """It takes up what it has itself, too: nobody acknowledges what waited for room."""
    raw = guest.raw
    held = standing(guest, where=where)
    attach(raw, held, 2**62)
    offset, data = output(raw, held, kind)
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


def test_one_that_stands_still_goes_on_once_its_session_is_gone(
    start_guest: Callable[..., Guest], directory: Path
) -> None:
    listener = listen(directory)
    guest = start_guest("--socket", str(directory))
    guest.raw = accept(listener)
    guest.raw.hello(detached=True, lifetime=600_000)
    standing(guest)
    raw = again(guest.raw, directory)

    def written() -> int:
        return struct.unpack_from("<Q", raw.ask(Ask.LIST), 13)[0]

    until(lambda: written() > 8 * OUTPUT_WINDOW, "nobody holds it up")


def test_its_end_is_told_once(guest: Guest) -> None:
    """What its family does after it is no other end."""
    raw = guest.raw
    held = raw.start("sh", "-c", "sleep 1000 &", flags=HELD, env=(guest.name,))
    raw.ending(held)
    raw.send(Ask.KILL, held)
    until(lambda: not guest.marked(), "what it left is gone")
    raw.ask(Ask.PING)


def test_a_session_begins_with_its_greeting_whatever_the_last_one_did_not_read(
    start_guest: Callable[..., Guest], directory: Path
) -> None:
    listener = listen(directory)
    guest = start_guest("--socket", str(directory))
    raw = accept(listener)
    raw.hello(detached=True, lifetime=600_000)
    commands = [raw.start("cat", "/dev/zero", env=(guest.name,)) for _ in range(8)]
    until(lambda: len(guest.marked()) == len(commands), "all run")
    asleep = [Path(f"/proc/{pid}/stat") for pid in guest.marked()]
    until(
        lambda: all(stat.read_text().rpartition(")")[2].split()[0] == "S" for stat in asleep),
        "all have said as much as anybody takes",
    )
    raw.stream.close()
    raw = accept(listen(directory))
    raw.send(Ask.HELLO, 0, struct.pack("<I", 1) + bytes(32) + struct.pack("<IQB", 60_000, 0, 1))
    assert raw.frame()[0] == Answer.HELLO
