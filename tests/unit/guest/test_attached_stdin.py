"""The stdin of execs that were attached to: on the mock's guest, on the real one, and on an older one."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest

from ringfence.backends.mock import MockBackend
from ringfence.errors import GuestError
from ringfence.guest.attached import Attached
from ringfence.guest.execs import Exec
from ringfence.guest.protocol import (
    INPUT_WINDOW,
    TOLD,
    U32,
    U64,
    Answer,
    Ask,
    ExecFlag,
    Feature,
    Told,
)
from ringfence.guest.request import Exit
from ringfence.guest.session import Session
from ringfence.spec import SandboxSpec

from .commands import spawn
from .conftest import Place
from .puppets import PID, Puppet

HELD = ExecFlag.SEARCH_PATH | ExecFlag.HOLD
OPEN = HELD | ExecFlag.STDIN_OPEN
hold = partial(spawn, flags=OPEN)


async def taken_from(session: Session, process: Exec) -> Attached:
    session.drop(process)
    return await session.attach(process.id, 2**62)


async def read(process: Exec, wanted: int) -> bytes:
    data = b""
    while len(data) < wanted:
        chunk = await process.read()
        assert chunk, data
        data += chunk
    return data


@pytest.fixture
async def newer() -> AsyncIterator[tuple[Session, Puppet]]:
    """A session with a guest that tells of stdin, and does what the test says."""
    guest = Puppet(features=Feature.ATTACH_STDIN)
    session = await Session.start(guest.connect)
    yield session, guest
    await session.close()
    guest.hang_up()


async def test_an_open_stdin_is_written_and_closed(place: Place) -> None:
    session = place.session
    first = await hold(session, "cat")
    assert await first.write(b"one")
    assert await read(first, 3) == b"one"
    again = await taken_from(session, first)
    assert again.stdin_total == 3
    assert await again.write(b"two!")
    assert await read(again, 4) == b"two!"
    assert again.stdin_total == 7
    third = await taken_from(session, again)
    third.write_eof()
    ending = await third.wait()
    assert isinstance(ending, Exit)
    assert (ending.exit_code, ending.stdout_total) == (0, 7)


async def test_input_that_was_under_way_comes_once_and_the_total_says_what_did_not(
    place: Place,
) -> None:
    """Whoever attaches goes on where the guest is, however often."""
    session = place.session
    data = bytes(range(256)) * 4096
    process = await hold(session, "sh", "-c", "sleep 0.2; cat" if place.real else "cat")
    at = 0
    for _ in range(4):
        writing = asyncio.create_task(process.write(data[at : at + 300_000]))
        await asyncio.sleep(0)
        session.drop(process)
        await writing
        process = await session.attach(process.id)
        assert at <= process.stdin_total <= at + 300_000
        at = process.stdin_total
    assert at > 0
    writing = asyncio.create_task(process.write(data[at:]))
    assert await read(process, len(data)) == data
    assert await writing
    process.write_eof()
    ending = await process.wait()
    assert isinstance(ending, Exit)
    assert ending.stdout_total == len(data)


async def test_a_stdin_that_was_closed_or_given_takes_nothing(place: Place) -> None:
    session = place.session
    closed = await hold(session, "sh", "-c", "cat; sleep 60")
    closed.write_eof()
    again = await taken_from(session, closed)
    assert not await again.write(b"x")
    assert "was closed before" in again.unwritable
    given = await spawn(session, "sh", "-c", "cat; sleep 60", flags=HELD, stdin=b"given")
    again = await taken_from(session, given)
    assert not await again.write(b"x")
    assert "when it was started" in again.unwritable
    assert "when it was started" in given.unwritable or given.over
    again.write_eof()
    over = await hold(session, "true")
    await over.wait()
    again = await session.attach(over.id)
    await again.wait()
    assert not await again.write(b"x")
    assert "it ended" in again.unwritable
    await session.kill_all()


async def test_stdin_for_what_takes_none_harms_nobody(place: Place) -> None:
    """The command goes on without it, and so does the session."""
    session = place.session
    process = await spawn(
        session, "sh", "-c", "cat; sleep 0.2; echo late", flags=HELD, stdin=b"given\n"
    )
    for data in (b"x" * 70_000, b""):
        session.send(Ask.STDIN, process.id, data)
    again = await taken_from(session, process)
    session.send(Ask.STDIN, again.id, b"x")
    ending = await again.wait()
    assert isinstance(ending, Exit)
    assert (ending.exit_code, ending.stdout_total) == (0, len(b"given\nlate\n"))
    await session.ping()


async def test_too_much_input_ends_its_command_alone(place: Place) -> None:
    if not place.real:
        pytest.skip("the mock's guest keeps no window of input")
    session = place.session
    process = await hold(session, "sleep", "60")
    session.send(Ask.STDIN, process.id, b"x" * (INPUT_WINDOW + 1))
    ending = await process.wait()
    assert isinstance(ending, Exit)
    assert ending.signal == 9
    await session.ping()


async def test_a_terminal_is_written_to_and_resized(place: Place) -> None:
    if not place.real:
        pytest.skip("the mock's guest has no terminals")
    session = place.session
    first = await spawn(
        session, "sh", "-c", "stty -echo; echo up; read x; echo $x; stty size; read x", flags=OPEN | ExecFlag.PTY
    )  # fmt: skip
    assert await read(first, 4) == b"up\r\n"
    again = await taken_from(session, first)
    assert again.terminal
    again.resize(50, 132)
    await again.write(b"typed\n")
    assert await read(again, 15) == b"typed\r\n50 132\r\n"
    again.write_eof()
    last = await taken_from(session, again)
    ending = await last.wait()
    assert isinstance(ending, Exit)
    assert ending.exit_code == 1
    pipe = await taken_from(session, await hold(session, "sleep", "60"))
    assert not pipe.terminal
    await session.kill_all()


async def test_a_held_execs_stdin_outlives_the_session() -> None:
    backend = MockBackend()
    spec = SandboxSpec()
    instance = await backend.create(spec, "test", await backend.facts(spec))
    first = await Session.start(instance.connect, detached=True, lifetime=60)
    process = await hold(first, "cat")
    await process.write(b"before")
    assert await read(process, 6) == b"before"
    await first.close()
    second = await Session.start(instance.connect, detached=True)
    again = await second.attach(process.id, 6)
    assert again.stdin_total == 6
    data = b"x" * (INPUT_WINDOW + 1)  # more than a window: what is read is acknowledged here
    writing = asyncio.create_task(again.write(data))
    assert await read(again, len(data)) == data
    assert await writing
    again.write_eof()
    assert isinstance(await again.wait(), Exit)
    await second.shutdown()


async def test_an_older_guest_is_asked_nothing_and_written_nothing(
    puppet: tuple[Session, Puppet],
) -> None:
    session, guest = puppet
    guest.answers[Ask.ATTACH] = [(Answer.STARTED, PID)]
    process = await session.attach(9, 1, 2)
    assert guest.sent(Ask.ATTACH) == [U64.pack(1) + U64.pack(2)]
    assert not await process.write(b"x")
    process.write_eof()
    process.resize(24, 80)
    assert "older" in process.unwritable
    assert process.stdin_total is None
    await session.ping()
    assert guest.sent(Ask.STDIN) == []
    assert len(guest.sent(Ask.RESIZE)) == 1


async def test_the_window_goes_on_where_the_guest_is(newer: tuple[Session, Puppet]) -> None:
    session, guest = newer
    guest.answers[Ask.ATTACH] = [
        (Answer.STDIN_ACK, U64.pack(5)),  # for whoever had it before
        (Answer.STARTED, TOLD.pack(7, Told.STDIN_OPEN, 1000, 900)),
        (Answer.STDIN_ACK, U64.pack(950)),
    ]
    process = await session.attach(9)
    assert guest.sent(Ask.ATTACH) == [bytes(16) + b"\1"]
    writing = asyncio.create_task(process.write(b"x" * INPUT_WINDOW))
    await session.ping()
    assert sum(map(len, guest.sent(Ask.STDIN))) == INPUT_WINDOW - 50
    guest.send(Answer.STDIN_ACK, 9, U64.pack(1000))
    assert await writing
    assert process.stdin_total == 1000 + INPUT_WINDOW


@pytest.mark.parametrize(
    "lie",
    [
        (7, Told.STDIN_OPEN, 5, 6),
        (7, Told.STDIN_OPEN, INPUT_WINDOW + 7, 6),
        (0, Told.STDIN_OPEN, 0, 0),
    ],
    ids=["more taken than sent", "more than a window", "process 0"],
)
async def test_what_cannot_be_of_a_stdin_ends_the_session(
    newer: tuple[Session, Puppet], lie: tuple[int, int, int, int]
) -> None:
    session, guest = newer
    guest.answers[Ask.ATTACH] = [(Answer.STARTED, TOLD.pack(*lie))]
    attaching = asyncio.create_task(session.attach(9))
    assert isinstance(await session.lost, GuestError)
    await asyncio.wait([attaching])
    assert attaching.exception() is not None


async def test_what_was_sent_wrongly_to_a_command_ends_no_session(
    puppet: tuple[Session, Puppet],
) -> None:
    """A FAIL of a running exec is followed by its end."""
    session, guest = puppet
    guest.answers[Ask.EXEC] = [(Answer.STARTED, PID)]
    process = await hold(session, "cat")
    guest.send(Answer.FAIL, process.id, U32.pack(71) + b"\0" + U32.pack(0))
    await session.ping()
    assert not process.over
