"""Two connections that are joined end alike: at their end, or broken off."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from ringfence.network.duplex import Buffered, SocketDuplex, join


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


@pytest.mark.parametrize("who", ["client", "origin", "neither"])
async def test_what_is_broken_off_is_no_end_for_the_other(who: str) -> None:
    """It would take the part that it has for the whole."""
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
