"""The attached stream: frames of the Engine are taken apart, whatever way they arrive."""

import asyncio
import struct
from pathlib import Path

import pytest

from ringfence.backends.docker.endpoint import resolve
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.streams import Attached, attach
from ringfence.errors import BackendUnavailableError


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


async def test_a_page_is_no_stream_and_a_stream_without_a_switch_is_one() -> None:
    attached, _ = await start()
    attached.data_received(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>")
    assert await attached.upgraded == (200, b"<html>")
    other, _ = await start()
    kind = b"Content-Type: application/vnd.docker.raw-stream"
    other.data_received(b"HTTP/1.1 200 OK\r\n" + kind + b"\r\n\r\n")
    assert (await other.upgraded)[0] == 101


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "ended without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", "no JSON of an Engine's"),
        (b'HTTP/1.1 403 No\r\nContent-Length: 20\r\n\r\n{"message": "denied"}', "says: denied"),
    ],
)
async def test_what_is_no_stream_is_told_in_words(short: Path, answer: bytes, said: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        ping = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 0\r\n\r\n"
        writer.write(ping if b"/_ping" in head else answer)
        writer.close()

    async with await asyncio.start_unix_server(serve, short / "e.sock"):
        engine = Engine(resolve(f"unix://{short}/e.sock"))
        with pytest.raises(BackendUnavailableError, match=f"attach.*{said}|{said}"):
            await attach(engine, "abc")
        await engine.close()


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
