"""Two connections that are joined end alike: at their end, or broken off."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from ringfence.network.duplex import CHUNK_BYTES, Buffered, SocketDuplex, join, pump
from ringfence.network.hello import UNCLEAR, server_name
from ringfence.network.http import copy_body, read_request


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[tuple[SocketDuplex, SocketDuplex]]:
    """The two ends of a connection."""
    taken: asyncio.Future[SocketDuplex] = asyncio.get_running_loop().create_future()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.set_result(SocketDuplex(reader, writer))

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        streams = await asyncio.open_connection(*server.sockets[0].getsockname())
        ends = SocketDuplex(*streams), await taken
        try:
            yield ends
        finally:
            for end in ends:
                end.close()


async def test_each_direction_ends_on_its_own() -> None:
    async with pair() as (client, inside), pair() as (outside, origin):
        joined = asyncio.create_task(join(Buffered(inside), outside, int, int))
        client.write(b"asked")
        client.write_eof()
        assert await origin.read() == b"asked"
        assert await origin.read() == b""
        origin.write(b"told")
        origin.close()
        assert await client.read() == b"told"
        assert await client.read() == b""
        await joined


async def breaks_off(who: str) -> None:
    """One side of a join is broken off, or the join is: every other side hears that."""
    async with pair() as (client, inside), pair() as (outside, origin):
        joined = asyncio.create_task(join(Buffered(inside), outside, int, int))
        client.write(b"part")
        origin.write(b"part")
        assert await client.read() == await origin.read() == b"part"
        if who == "neither":
            joined.cancel()
        else:
            (client if who == "client" else origin).reset()
        with pytest.raises(asyncio.CancelledError if who == "neither" else ConnectionResetError):
            await joined
        for end in {"client": [origin], "origin": [client]}.get(who, [client, origin]):
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(end.read(), 20)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("who", ["client", "origin", "neither"])
def test_what_is_broken_off_is_no_end_for_the_other(who: str, loop: str) -> None:
    """It would take the part that it has for the whole."""
    with asyncio.Runner(loop_factory=pytest.importorskip(loop).new_event_loop) as runner:
        runner.run(breaks_off(who))


class Endless:
    """One that always has more to give, and takes nothing."""

    def __init__(self, piece: bytes) -> None:
        self.piece = piece
        self.given = 0

    async def read(self, size: int = CHUNK_BYTES) -> bytes:
        self.given += 1
        assert self.given < 10_000
        return self.piece[:size]

    def write(self, data: bytes) -> None:
        pass

    async def drain(self) -> None:
        await asyncio.get_running_loop().create_future()

    def write_eof(self) -> None:
        pass

    close = reset = write_eof


@pytest.mark.parametrize("size", [1 << 40, None])
async def test_no_more_is_read_than_the_other_side_takes(size: int | None) -> None:
    """A sandbox would fill the memory of this process."""
    source, target = Endless(b"ffff\r\n" + bytes(0xFFFF) + b"\r\n"), Endless(b"")
    for copying in (copy_body(Buffered(source), target, size, int, []), pump(source, target, int)):
        source.given = 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(copying, 0.01)
        assert source.given == 1


async def test_a_hello_without_an_end_is_not_read_for_ever() -> None:
    for piece in (b"\x16\x03\x01\0\0", b"\x16\x03\x01\0\x04\x01\xff\xff\xff"):
        assert await server_name(Buffered(Endless(piece))) == UNCLEAR


async def test_a_head_without_an_end_is_not_read_for_ever() -> None:
    with pytest.raises(ValueError, match="no end"):
        await read_request(Buffered(Endless(b"x" * 1000)))
