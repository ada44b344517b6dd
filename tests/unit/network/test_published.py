"""Published ports: how many clients they take, and what becomes of the rest."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import ringfence
from ringfence.network import PublishedPort, publish
from ringfence.network.duplex import SocketDuplex
from ringfence.network.published import CLIENTS_MOST
from ringfence.spec.network import Port

from ...conftest import require_bwrap

ECHO = """
import asyncio
async def serve(reader, writer):
    while data := await reader.read(100):
        writer.write(data)
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 8000, backlog=1024)
    print("listens", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


class Inside:
    """An echo inside that takes at most `room` connections at a time, as a guest does."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.asked = 0
        self.most = 0
        self._serving = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving += 1
        self.most = max(self.most, self._serving)
        while data := await reader.read(100):
            writer.write(data)
        writer.close()
        self._serving -= 1

    async def connect(self, port: int) -> SocketDuplex:
        self.asked += 1
        if self._serving >= self.room:
            raise BlockingIOError
        return SocketDuplex(*await asyncio.open_connection("127.0.0.1", port))


@contextlib.asynccontextmanager
async def published(inside: Inside) -> AsyncIterator[PublishedPort]:
    async with await asyncio.start_server(inside.serve, "127.0.0.1", 0) as server:
        number = server.sockets[0].getsockname()[1]
        port = await publish(Port.parse(number), inside.connect)
        try:
            yield port
        finally:
            await port.aclose()


async def told(port: int, said: bytes) -> bytes:
    """What the echo behind a port of this machine answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(said)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


async def held(port: int) -> asyncio.StreamWriter:
    """A client whose connection inside is there, and stays."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    return writer


async def answers_once_there_is_room(port: int, holders: int, more: int) -> None:
    writers = [await held(port) for _ in range(holders)]
    waiting = [asyncio.ensure_future(told(port, b"%d" % number)) for number in range(more)]
    done, _ = await asyncio.wait(waiting, timeout=0.5)
    assert not done, "a client that waits was told something"
    for writer in writers:
        writer.close()
    assert await asyncio.gather(*waiting) == [b"%d" % number for number in range(more)]


async def test_clients_wait_while_a_port_has_all_that_it_takes() -> None:
    """They are the kernel's until then: nothing here is kept for them."""
    inside = Inside(room=10_000)
    async with published(inside) as port:
        await answers_once_there_is_room(port.host, CLIENTS_MOST, 40)
        assert inside.most == CLIENTS_MOST


async def test_no_other_machine_reaches_a_port() -> None:
    """It is open at one address of the loopback interface, not at all of this machine's."""
    async with published(Inside(room=1)) as port:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.2", port.host)
        assert await told(port.host, b"here") == b"here"


async def test_clients_wait_while_there_is_no_room_inside() -> None:
    """The proxy and other ports have a part in it. One asks again for all of them."""
    inside = Inside(room=3)
    async with published(inside) as port:
        await answers_once_there_is_room(port.host, 3, 20)
        assert inside.most == 3


async def test_closing_ends_what_waits_and_what_is_carried() -> None:
    """No task is left, and the port is free again."""
    before = asyncio.all_tasks()
    inside = Inside(room=1)
    async with published(inside) as port:
        writer = await held(port.host)
        waiting = asyncio.ensure_future(told(port.host, b"waits"))
        while inside.asked < 3:
            await asyncio.sleep(0.01)
        await port.aclose()
        with contextlib.suppress(ConnectionError):
            assert await waiting == b""
        with pytest.raises(ConnectionError):
            await told(port.host, b"late")
        writer.close()
        await port.aclose()
    while asyncio.all_tasks() - before:
        await asyncio.sleep(0.01)


@pytest.mark.process
async def test_a_server_inside_has_more_clients_than_a_guest_carries(
    state_directory: Path,
) -> None:
    """Over a real guest the first have their connections, the others wait and get theirs."""
    require_bwrap()
    async with (
        ringfence.open(backend="process", network={"ports": [8000]}) as sandbox,
        sandbox.spawn(["python3", "-c", ECHO], cwd="/tmp") as server,
    ):
        assert await server.stdout.readline() == b"listens\n"
        await answers_once_there_is_room(sandbox.network.ports[8000], 128, 72)


async def test_clients_that_cannot_be_taken_yet_wait_and_hold_up_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is no descriptor left for more of them than are taken at a time."""
    loop = asyncio.get_running_loop()
    accept, tries, turns = loop.sock_accept, list[int](), list[int]()

    async def full_at_first(listening: socket.socket) -> tuple[socket.socket, object]:
        tries.append(len(turns))
        loop.call_soon(turns.append, 1)
        if len(tries) <= CLIENTS_MOST + 1:
            raise OSError(errno.EMFILE, "no descriptor left")
        return await accept(listening)

    monkeypatch.setattr(loop, "sock_accept", full_at_first)
    monkeypatch.setattr("ringfence.network.published._AGAIN_SECONDS", 0.0)
    async with published(Inside(1)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port.host)
        writer.write(b"hello")
        assert await asyncio.wait_for(reader.readexactly(5), 20) == b"hello"
        writer.close()
    assert tries[CLIENTS_MOST + 1] == CLIENTS_MOST + 1


async def test_a_client_is_broken_off_where_nothing_listens() -> None:
    """An end would look like the answer of a program that had nothing to say."""

    async def refuse(port: int) -> SocketDuplex:
        raise ConnectionRefusedError

    port = await publish(Port.parse(8000), refuse)
    reader, writer = await asyncio.open_connection("127.0.0.1", port.host)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 20)
    writer.close()
    await port.aclose()


async def test_nothing_of_a_port_goes_on_when_it_is_closed() -> None:
    before = asyncio.all_tasks()
    connected = asyncio.Event()

    async def connect(port: int) -> SocketDuplex:
        connected.set()
        await asyncio.sleep(3600)
        raise AssertionError

    port = await publish(Port.parse(8000), connect)
    reader, writer = await asyncio.open_connection("127.0.0.1", port.host)
    await asyncio.wait_for(connected.wait(), 20)
    await port.aclose()
    assert asyncio.all_tasks() == before
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), 20) == b""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port.host)
    writer.close()
