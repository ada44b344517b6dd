"""The attached stream: frames of the Engine are taken apart, whatever way they arrive."""

import asyncio
import struct

import pytest

from ringfence.backends.docker.streams import Attached


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.aborted = False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.aborted = True


class Inner(asyncio.BufferedProtocol):
    """Takes 3 bytes at a time, as a nearly full buffer would."""

    def __init__(self) -> None:
        self.seen = b""
        self.ended = False
        self.room = bytearray(3)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.room

    def buffer_updated(self, nbytes: int) -> None:
        self.seen += self.room[:nbytes]

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True


def framed(kind: int, data: bytes) -> bytes:
    return struct.pack(">BxxxI", kind, len(data)) + data


HEAD = b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n"


async def start() -> tuple[Attached, Wire]:
    attached, wire = Attached(), Wire()
    attached.connection_made(wire)
    return attached, wire


@pytest.mark.parametrize("step", [1, 2, 7, 8, 9, 1000])
async def test_stdout_alone_arrives_however_the_bytes_are_cut(step: int) -> None:
    attached, wire = await start()
    inner = Inner()
    data = HEAD + framed(1, b"hello ") + framed(2, b"noise") + framed(1, b"") + framed(1, b"guest")
    for at in range(0, len(data), step):
        attached.data_received(data[at : at + step])
        if attached.upgraded.done() and inner.seen == b"" and attached._inner is None:
            assert not wire.reading
            attached.join(lambda: inner)
            assert wire.reading
    assert inner.seen == b"hello guest"


async def test_an_answer_that_is_no_upgrade_gives_its_status_and_body() -> None:
    attached, _ = await start()
    attached.data_received(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")
    assert await attached.upgraded == (404, b"{}")


async def test_an_end_before_the_answer_is_no_upgrade() -> None:
    attached, _ = await start()
    attached.connection_lost(None)
    assert (await attached.upgraded)[0] == 0


async def test_an_endless_head_is_cut_off() -> None:
    attached, wire = await start()
    attached.data_received(b"x" * 100_000)
    assert wire.aborted


async def test_an_end_before_the_inner_protocol_came_is_told_to_it() -> None:
    attached, _ = await start()
    attached.data_received(HEAD)
    attached.connection_lost(None)
    inner = Inner()
    attached.join(lambda: inner)
    assert inner.ended
