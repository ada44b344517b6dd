"""What gathers on the host where a guest does not read, or says what cannot be answered."""

import asyncio
import socket
import struct
from typing import cast

import pytest

from ringfence.errors import GuestError
from ringfence.guest import connection
from ringfence.guest.connection import TICKS
from ringfence.guest.protocol import GUEST_IDS, U64, Answer, Ask
from ringfence.guest.session import Session

from .puppets import PID, Puppet, guest_frame


def ends(session: Session, guest: Puppet) -> tuple[asyncio.Transport, asyncio.Transport]:
    """The host's end of the stream and the guest's, on which nothing is read from now on."""
    theirs = cast("asyncio.Transport", guest.transport)
    theirs.pause_reading()
    return cast("asyncio.Transport", session._transport), theirs


async def test_an_offset_that_no_output_reaches_ends_the_session(
    puppet: tuple[Session, Puppet],
) -> None:
    """Whoever reads has no error of numbers: what it acknowledges would be too large to send."""
    session, guest = puppet
    far = U64.pack(2**64 - 200_000) + bytes(300_000)
    guest.answers[Ask.ATTACH] = [(Answer.STARTED, PID), (Answer.OUT, far)]
    process = await session.attach(9)
    while await process.read():
        pass
    assert isinstance(await session.lost, GuestError)


async def test_a_guest_that_asks_and_reads_no_answer_is_not_heard_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else all the answers would gather here."""
    most = 64 * 1024
    monkeypatch.setattr(connection, "WAITING_BYTES", most)
    guest = Puppet()
    session = await Session.start(guest.connect)
    ours, theirs = ends(session, guest)
    asked = 200_000
    theirs.write(guest_frame(Answer.ACCEPT, GUEST_IDS, struct.pack("<IH", 1, 1)) * asked)
    left, quiet = theirs.get_write_buffer_size(), 0
    while left and quiet < 100:
        await asyncio.sleep(0.001)
        before, left = left, theirs.get_write_buffer_size()
        quiet = quiet + 1 if left == before else 0
    assert left > 0
    assert most < ours.get_write_buffer_size() < 10 * most
    theirs.resume_reading()
    while len(guest.frames) < asked:
        await asyncio.sleep(0)
    assert {op for op, _, _ in guest.frames} == {Ask.RESET}
    await session.ping()
    await session.close()
    guest.hang_up()


async def test_a_guest_that_takes_what_waits_for_it_is_kept_though_it_says_nothing() -> None:
    """Nothing that it says is read while much waits."""
    guest = Puppet()
    session = await Session.start(guest.connect, lease=3000.0)
    ours, theirs = ends(session, guest)
    guest.pings = False
    ours.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
    session.send(Ask.STDIN, 1, bytes(4_000_000))
    for _ in range(2 * TICKS):
        session._on_tick()
        before = ours.get_write_buffer_size()
        theirs.resume_reading()
        while ours.get_write_buffer_size() == before and not session.lost.done():
            await asyncio.sleep(0)
        theirs.pause_reading()
    assert ours.get_write_buffer_size() > 0
    assert not session.lost.done()
    for _ in range(2 * TICKS):
        session._on_tick()
    assert "sign of life" in (await session.lost).message
    guest.hang_up()
