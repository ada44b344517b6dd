"""TCP between the host and the sandbox, over the real guest and a hostile one."""

import asyncio
import hashlib
import os
import struct
from collections.abc import AsyncIterator

import pytest

from ringfence.errors import (
    AlreadyExistsError,
    GuestError,
    InvalidSpecError,
    ResourceExhaustedError,
    SandboxLostError,
    UnsupportedError,
)
from ringfence.guest.forward import STREAMS_MOST, Forward
from ringfence.guest.protocol import (
    FORWARD_WINDOW,
    GUEST_IDS,
    U16,
    U32,
    U64,
    Answer,
    Ask,
    Feature,
)
from ringfence.guest.session import Session
from ringfence.guest.tcp import Stream

from .conftest import Place
from .puppets import Puppet

LARGE = os.urandom(1024 * 1024) * 5
SECONDS = 30


@pytest.fixture
async def real(place: Place) -> Place:
    if not place.real:
        pytest.skip("the mock has no network")
    return place


@pytest.fixture
async def patience() -> asyncio.Timeout:
    """Nothing here may hang."""
    return asyncio.timeout(SECONDS)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


async def echo_inside(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def read_all(stream: Stream) -> bytes:
    chunks = []
    while chunk := await stream.read():
        chunks.append(chunk)
    return b"".join(chunks)


@pytest.fixture
async def server() -> AsyncIterator[int]:
    """The port of an echo server; the real guest of these tests shares the network."""
    running = await asyncio.start_server(echo_inside, "127.0.0.1", 0)
    yield running.sockets[0].getsockname()[1]
    running.close()
    await running.wait_closed()


async def test_the_mock_says_that_it_has_none(place: Place) -> None:
    if place.real:
        assert place.session.hello.features & Feature.FORWARD
        return
    with pytest.raises(UnsupportedError):
        await place.session.listen(0, echo)
    with pytest.raises(UnsupportedError):
        await place.session.connect_inside(80)


@pytest.mark.parametrize("data", [b"hello", LARGE])
async def test_a_process_inside_talks_to_the_host(real: Place, patience, data: bytes) -> None:
    async with patience:
        listener = await real.session.listen(0, echo)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        answer = asyncio.create_task(reader.read())
        writer.write(data)
        writer.write_eof()
        assert hashlib.sha256(await answer).digest() == hashlib.sha256(data).digest()
        writer.close()
        await listener.close()
        await listener.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", listener.port)


async def test_the_host_knows_the_peer_and_many_connections(real: Place, patience) -> None:
    ports = []

    async def serve(stream: Stream) -> None:
        ports.append(stream.peer_port)
        stream.write(str(stream.peer_port).encode())

    async with patience:
        listener = await real.session.listen(0, serve)
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            own = writer.get_extra_info("sockname")[1]
            assert await reader.read() == str(own).encode()
            writer.close()
        assert len(set(ports)) == 20


@pytest.mark.parametrize("data", [b"hello", LARGE])
async def test_the_host_talks_to_a_server_inside(
    real: Place, server: int, patience, data: bytes
) -> None:
    async with patience:
        stream = await real.session.connect_inside(server)
        answer = asyncio.create_task(read_all(stream))
        stream.write(data)
        await stream.drain()
        stream.write_eof()
        assert await answer == data
        with pytest.raises(BrokenPipeError):
            stream.write(b"more")
        while not stream.over:
            await real.session.ping()


async def test_what_was_said_before_a_connection_broke_comes_before_that(
    real: Place, patience: asyncio.Timeout
) -> None:
    """As where a server refuses an upload before it has come: its answer says why."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.transport.pause_reading()  # what is not read when it closes has the kernel break it
        writer.write(b"too large")
        writer.close()

    async with patience, await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        for _ in range(20):
            stream = await real.session.connect_inside(server.sockets[0].getsockname()[1])
            stream.write(bytes(FORWARD_WINDOW))
            assert await stream.read() == b"too large"
            with pytest.raises(ConnectionResetError):
                await stream.read()


async def test_nobody_listens(real: Place, patience) -> None:
    async with patience:
        listener = await real.session.listen(0, echo)
        await listener.close()
        with pytest.raises(ConnectionRefusedError):
            await real.session.connect_inside(listener.port)


async def test_only_the_loopback_inside(real: Place) -> None:
    for address in ("10.0.0.1", "0.0.0.0", "::", "example.com", ""):
        with pytest.raises(InvalidSpecError):
            await real.session.listen(0, echo, address=address)
        with pytest.raises(OSError, match="connect inside"):
            await real.session.connect_inside(80, address=address)


async def test_a_port_that_is_taken(real: Place, server: int) -> None:
    with pytest.raises(AlreadyExistsError):
        await real.session.listen(server, echo)


async def test_the_guest_listens_on_so_many_ports_and_no_more(real: Place) -> None:
    listeners = [await real.session.listen(0, echo) for _ in range(128)]
    with pytest.raises(ResourceExhaustedError, match="close some"):
        await real.session.listen(0, echo)
    await listeners[0].close()
    await real.session.listen(0, echo)


async def test_a_reset_is_a_reset_on_the_other_side(real: Place, patience) -> None:
    async def refuse(stream: Stream) -> None:
        await stream.read()
        raise ConnectionAbortedError

    async with patience:
        listener = await real.session.listen(0, refuse)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
        broken: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        async def read(stream: Stream) -> None:
            try:
                await stream.read()
            except ConnectionResetError as error:
                broken.set_result(error)

        other = await real.session.listen(0, read)
        reader, writer = await asyncio.open_connection("127.0.0.1", other.port)
        writer.transport.get_extra_info("socket").setsockopt(1, 13, struct.pack("ii", 1, 0))
        writer.transport.abort()
        assert await broken


async def test_who_does_not_read_stops_the_writer_and_nobody_else(real: Place, patience) -> None:
    held = asyncio.Event()

    async def hold(stream: Stream) -> None:
        await held.wait()
        assert await read_all(stream) == LARGE * 4

    async with patience:
        listener = await real.session.listen(0, hold)
        _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(LARGE * 4)
        writing = asyncio.create_task(writer.drain())
        other = await real.session.listen(0, echo)
        reader, quick = await asyncio.open_connection("127.0.0.1", other.port)
        quick.write(b"x")
        assert await reader.readexactly(1) == b"x"
        quick.close()
        assert not writing.done()
        held.set()
        await writing
        writer.write_eof()
        writer.close()
        await writer.wait_closed()


async def test_what_was_written_before_the_close_arrives(real: Place, patience) -> None:
    async def give(stream: Stream) -> None:
        stream.write(LARGE * 2)

    async with patience:
        listener = await real.session.listen(0, give)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"nobody reads this" * 100_000)
        for _ in range(100):
            await real.session.ping()
        assert len(await reader.read()) == 2 * len(LARGE)
        writer.close()


async def test_a_stream_ends_with_its_session(real: Place, server: int, patience) -> None:
    async with patience:
        stream = await real.session.connect_inside(server)
        await real.session.shutdown()
        with pytest.raises(SandboxLostError):
            await stream.read()
        with pytest.raises(SandboxLostError):
            stream.write(b"x")


async def test_more_connections_than_there_is_room_for_wait(real: Place, patience) -> None:
    release = asyncio.Event()

    async def hold(stream: Stream) -> None:
        await release.wait()
        stream.write(b"x")

    async def visit(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        data = await reader.read()
        writer.close()
        return data

    async with patience:
        listener = await real.session.listen(0, hold)
        visits = [asyncio.create_task(visit(listener.port)) for _ in range(600)]
        await real.session.ping()
        release.set()
        assert await asyncio.gather(*visits) == [b"x"] * 600


# What a hostile guest may do.


@pytest.fixture
def able(puppet: tuple[Session, Puppet], monkeypatch) -> tuple[Session, Puppet]:
    monkeypatch.setattr(Forward, "_check", lambda self, op: None)
    return puppet


async def test_an_accept_that_nobody_listens_for_is_reset(able) -> None:
    session, guest = able
    guest.send(Answer.ACCEPT, GUEST_IDS + 1, U32.pack(77) + U16.pack(1))
    assert await guest.question(Ask.RESET) == (GUEST_IDS + 1, b"")
    guest.send(Answer.RECEIVED, GUEST_IDS + 1, b"late")
    guest.send(Answer.CLOSED, GUEST_IDS + 1, U32.pack(125))
    await session.ping()


async def test_what_many_connections_send_is_bounded_on_the_host(able) -> None:
    """One more than there is room for is reset; the windows of all the others are all it keeps."""
    assert STREAMS_MOST * FORWARD_WINDOW <= 256 * 1024 * 1024
    session, guest = able
    guest.answers[Ask.LISTEN] = [(Answer.DONE, U16.pack(80))]
    listener = await session.forward.listen(80, lambda _: asyncio.sleep(60))
    for number in range(STREAMS_MOST + 1):
        guest.send(Answer.ACCEPT, GUEST_IDS + number, U32.pack(listener.id) + U16.pack(1))
    assert await guest.question(Ask.RESET) == (GUEST_IDS + STREAMS_MOST, b"")
    await session.ping()


async def test_a_cancelled_listen_gives_the_port_back(able) -> None:
    session, guest = able
    task = asyncio.create_task(session.listen(80, echo))
    listener_id, _ = await guest.question(Ask.LISTEN)
    task.cancel()
    await asyncio.wait([task])
    closing, payload = await guest.question(Ask.CLOSE_LISTENER)
    assert payload == U32.pack(listener_id)
    guest.send(Answer.DONE, listener_id, U16.pack(80))
    guest.send(Answer.ACCEPT, GUEST_IDS, U32.pack(listener_id) + U16.pack(1))
    guest.send(Answer.DONE, closing)
    assert await guest.question(Ask.RESET) == (GUEST_IDS, b"")
    await session.ping()
    assert session.operations() == ()


async def test_an_answer_in_the_moment_of_a_cancellation_is_none_too_many(able) -> None:
    session, guest = able
    for asked, op, answer in (
        (session.listen(80, echo), Ask.LISTEN, U16.pack(80)),
        (session.connect_inside(80), Ask.CONNECT, b""),
    ):
        task = asyncio.create_task(asked)
        operation_id, _ = await guest.question(op)
        (operation,) = session.operations()
        task.cancel()
        assert not operation.receive(Answer.DONE, memoryview(answer))
        await asyncio.wait([task])
        assert task.cancelled()
        assert operation_id == operation.id
        for waiting in session.operations():
            guest.send(Answer.DONE, waiting.id)
        await session.ping()


async def connected(able: tuple[Session, Puppet]) -> Stream:
    session, guest = able
    guest.answers[Ask.CONNECT] = [(Answer.DONE, b"")]
    return await session.connect_inside(80)


@pytest.mark.parametrize(
    "frames",
    [
        [(Answer.RECEIVED, bytes(600 * 1024))] * 2,
        [(Answer.RECEIVED, b""), (Answer.RECEIVED, b"more")],
        [(Answer.STDIN_ACK, U64.pack(1))],
        [(Answer.STDIN_ACK, b"")],
        [(Answer.CLOSED, b"")],
        [(Answer.DONE, b"")],
        [(Answer.OUT, U64.pack(0))],
    ],
)
async def test_what_no_connection_does_ends_the_session(able, frames: list) -> None:
    session, guest = able
    stream = await connected(able)
    for op, payload in frames:
        guest.send(op, stream.id, payload)
    assert isinstance(await session.lost, GuestError)
    with pytest.raises(SandboxLostError):
        await read_all(stream)


async def test_the_host_keeps_to_its_window(able) -> None:
    session, guest = able
    stream = await connected(able)
    stream.write(bytes(FORWARD_WINDOW + 10))
    stream.write(b"end")
    stream.write_eof()
    await session.ping()
    assert sum(map(len, guest.sent(Ask.SEND))) == FORWARD_WINDOW
    guest.send(Answer.STDIN_ACK, stream.id, U64.pack(FORWARD_WINDOW))
    while guest.sent(Ask.SEND)[-1]:
        await session.ping()
    assert b"".join(guest.sent(Ask.SEND)) == bytes(FORWARD_WINDOW + 10) + b"end"
    guest.send(Answer.CLOSED, stream.id, U32.pack(0))
    assert await stream.read() == b""


async def test_a_bad_port_is_refused_here(able) -> None:
    session, _ = able
    for port in (-1, 65536):
        with pytest.raises(InvalidSpecError):
            await session.listen(port, echo)
        with pytest.raises(InvalidSpecError):
            await session.connect_inside(port)
