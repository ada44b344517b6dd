"""Execs with live streams, on the mock's guest and on the real one."""

import asyncio
import contextlib
import signal
from pathlib import Path

import pytest

from ringfence.backends.mock import MockBackend
from ringfence.errors import InvalidSpecError, NotFoundError, SandboxLostError, StateError
from ringfence.guest.execs import Exec
from ringfence.guest.places import Places
from ringfence.guest.protocol import (
    OUTPUT_WINDOW,
    STDERR,
    STDOUT,
    U32,
    U64,
    Answer,
    Ask,
    ExecFlag,
)
from ringfence.guest.request import ExecRequest, Exit, NotStarted
from ringfence.guest.session import Session
from ringfence.spec import Reason, SandboxSpec

from .commands import OPEN, command, spawn
from .conftest import Place, real_place
from .puppets import PID, Puppet, exit_payload

HELD = OPEN | ExecFlag.HOLD


async def read_all(process: Exec, stream: int = STDOUT) -> bytes:
    chunks = []
    while chunk := await process.read(stream):
        chunks.append(chunk)
    return b"".join(chunks)


async def test_a_conversation(place: Place) -> None:
    process = await spawn(place.session, "cat")
    for line in (b"one\n", b"two\n"):
        assert await process.write(line)
        assert await process.read() == line
    process.write_eof()
    ending = await process.wait()
    assert isinstance(ending, Exit)
    assert (ending.exit_code, ending.stdout_total) == (0, 8)
    assert await process.read() == b""


async def test_what_may_wait_for_what_follows_comes_where_nothing_does() -> None:
    """A start that nobody waits for, and the last of a stream whose end has come."""
    script = "sleep 0.1; echo out; exec >&- 2>&-; sleep 1000"
    async with real_place() as place:
        place.session.suspend()  # an answer to a ping would take it along
        process = await place.session._begin(command("sh", "-c", script), collect=True)
        async with asyncio.timeout(30):
            while not process.pid:
                await asyncio.sleep(0.01)
            while bytes(process.stdout.data) != b"out\n":
                await asyncio.sleep(0.01)
        place.session.resume()
        process.kill()
        ending = await process.ended
    assert isinstance(ending, Exit)
    assert (ending.reason, ending.stdout) == (Reason.KILLED, b"out\n")


def writes(guest: int) -> int:
    """Its calls of write(2) so far."""
    counters = Path(f"/proc/{guest}/io").read_text().splitlines()
    return int(next(line for line in counters if line.startswith("syscw:")).split()[1])


def guest_of(place: Place) -> int:
    """Its guest's pid, the one child of what started it."""
    assert place.process is not None
    maker = place.process.pid
    return int(Path(f"/proc/{maker}/task/{maker}/children").read_text())


async def test_what_nobody_waits_for_leaves_with_the_end_of_a_short_command() -> None:
    """Start, output and end wake the host once: five times in a row, for which a busy machine has
    many tries."""
    short = command("sh", "-c", "echo out; exec >&- 2>&-; sleep 0.003")
    async with real_place() as place:
        guest, in_a_row, tries = guest_of(place), 0, 0
        while in_a_row < 5 and tries < 300:
            tries, before = tries + 1, writes(guest)
            ending = await place.session.run(short)
            assert isinstance(ending, Exit)
            assert ending.stdout == b"out\n"
            in_a_row = in_a_row + 1 if writes(guest) - before == 1 else 0
    assert in_a_row == 5


async def test_a_read_gives_at_most_what_was_asked_for(place: Place) -> None:
    process = await spawn(place.session, "cat")
    await process.write(b"abcdef")
    assert await process.read(STDOUT, 2) == b"ab"
    process.write_eof()
    assert await read_all(process) == b"cdef"


async def test_the_two_streams_are_apart(place: Place) -> None:
    process = await spawn(place.session, "sh", "-c", "echo out; echo err >&2")
    assert await read_all(process, STDERR) == b"err\n"
    assert await read_all(process) == b"out\n"


async def test_output_that_nobody_reads_stops_the_command_at_a_window(place: Place) -> None:
    data = bytes(range(256)) * 4096 * 8
    process = await spawn(place.session, "cat")
    writing = asyncio.create_task(process.write(data))
    while len(process.stdout.data) < OUTPUT_WINDOW:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert len(process.stdout.data) == OUTPUT_WINDOW
    assert not writing.done()
    pieces = []
    while sum(map(len, pieces)) < len(data):
        pieces.append(await process.read())
    assert b"".join(pieces) == data
    assert await writing
    process.write_eof()
    await process.wait()


async def test_a_kill_ends_a_command_whose_output_nobody_reads(place: Place) -> None:
    process = await spawn(place.session, "cat")
    writing = asyncio.create_task(process.write(b"x" * 4 * OUTPUT_WINDOW))
    while len(process.stdout.data) < OUTPUT_WINDOW:
        await asyncio.sleep(0.01)
    process.kill()
    ending = await asyncio.wait_for(process.wait(), 20)
    assert isinstance(ending, Exit)
    assert (ending.reason, ending.signal) == (Reason.KILLED, 9)
    await asyncio.wait_for(writing, 20)  # the guest may have dropped all of it before the end came
    assert set(await read_all(process)) == {ord("x")}


async def test_a_signal_reaches_the_command(place: Place) -> None:
    process = await spawn(place.session, "sleep", "60")
    process.signal(signal.SIGTERM)
    ending = await process.wait()
    assert isinstance(ending, Exit)
    assert (ending.signal, ending.reason) == (15, Reason.SIGNALED)


async def test_a_spawn_that_cannot_start_says_so(place: Place) -> None:
    process = await place.session.spawn(command("no-such-program-here"))
    assert isinstance(process, NotStarted)


async def test_running_commands_are_listed(place: Place) -> None:
    process = await spawn(place.session, "sleep", "60")
    rows = [row for row in await place.session.list() if row.running]
    assert [(row.id, row.pid, row.args) for row in rows] == [
        (process.id, process.pid, (b"sleep", b"60"))
    ]
    assert await place.session.kill_all() >= 1
    ending = await process.wait()
    assert isinstance(ending, Exit)
    assert ending.reason is Reason.KILLED


async def test_a_held_exec_is_attached_again_and_forgotten(place: Place) -> None:
    session = place.session
    process = await spawn(session, "echo", "kept", flags=HELD)
    assert await read_all(process) == b"kept\n"
    again = await session.attach(process.id)
    assert await read_all(again) == b"kept\n"
    ending = await again.wait()
    assert isinstance(ending, Exit)
    assert ending.exit_code == 0
    part = await session.attach(process.id, 2)
    assert await read_all(part) == b"pt\n"
    await session.forget(process.id)
    with pytest.raises(NotFoundError):
        await session.attach(process.id)
    for number in (process.id, 0, -1, 2**31, 2**40):
        with pytest.raises(NotFoundError):
            await session.forget(number)
        with pytest.raises(NotFoundError):
            await session.attach(number)


async def test_what_an_exec_still_says_is_no_answer_to_forget(
    puppet: tuple[Session, Puppet],
) -> None:
    session, guest = puppet
    guest.answers[Ask.FORGET] = [
        (Answer.STARTED, PID),
        (Answer.OUT, U64.pack(0) + b"last words"),
        (Answer.EXIT, exit_payload(out=10)),
        (Answer.DONE, b""),
    ]
    await session.forget(9)
    await session.ping()


async def test_a_held_exec_outlives_its_session() -> None:
    backend = MockBackend()
    spec = SandboxSpec()
    instance = await backend.create(spec, "test", await backend.facts(spec))
    first = await Session.start(instance.connect, detached=True, lifetime=60)
    process = await spawn(first, "cat", flags=HELD)
    other = await spawn(first, "sleep", "60")
    await process.write(b"before")
    assert await process.read() == b"before"
    await first.close()
    ending = await process.wait()
    assert isinstance(ending, Exit)
    assert ending.reason is Reason.SANDBOX_LOST

    second = await Session.start(instance.connect, detached=True)
    assert second.hello.epoch == 2
    rows = await second.list()
    assert [row.id for row in rows] == [process.id]
    fresh = await spawn(second, "true")
    assert fresh.id not in (process.id, other.id)
    again = await second.attach(process.id, rows[0].stdout_end)
    again.kill()
    ending = await again.wait()
    assert isinstance(ending, Exit)
    assert ending.reason is Reason.KILLED
    await second.shutdown()


async def test_a_gap_in_a_held_output_is_allowed_but_not_a_step_back(puppet: tuple) -> None:
    session, guest = puppet
    guest.answers[Ask.ATTACH] = [
        (Answer.STARTED, PID),
        (Answer.OUT, U64.pack(5000) + b"late"),
        (Answer.EXIT, exit_payload(out=5004)),
    ]
    process = await session.attach(99, 10)
    assert await read_all(process) == b"late"
    guest.answers[Ask.ATTACH][1:] = [
        (Answer.OUT, U64.pack(10) + b"new"),
        (Answer.OUT, U64.pack(3) + b"old"),
    ]
    await session.attach(98, 10)
    assert "out of order" in (await session.lost).message


async def test_an_offset_that_nothing_has_reached_is_the_end_of_what_is_there(place: Place) -> None:
    session = place.session
    over = await spawn(session, "echo", "over", flags=HELD)
    assert await read_all(over) == b"over\n"
    again = await session.attach(over.id, 1000, 1000)
    assert await read_all(again) == b""
    ending = await again.wait()
    assert isinstance(ending, Exit)
    assert (ending.exit_code, ending.stdout_total) == (0, 5)
    running = await spawn(session, "cat", flags=HELD | ExecFlag.STDIN_OPEN)
    await running.write(b"before")
    assert await running.read() == b"before"
    session.drop(running)
    again = await session.attach(running.id, 1000)
    await again.write(b"more")
    assert await again.read() == b"more"
    again.kill()
    await again.wait()
    with pytest.raises(InvalidSpecError, match="stdout_offset"):
        await session.attach(running.id, -1)
    await session.ping()


async def test_who_was_attached_before_reaches_the_exec_no_more(place: Place) -> None:
    session = place.session
    first = await spawn(session, "cat", flags=HELD)
    for _ in range(5):
        await first.write(b"x" * 200_000)
    reading = asyncio.create_task(first.read(STDERR))
    waiting = asyncio.create_task(first.wait())
    await asyncio.sleep(0)
    session.drop(first)
    second = await session.attach(first.id)
    assert await reading == b""
    with pytest.raises(StateError, match="again"):
        await waiting
    assert not await first.write(b"x")
    first.discard()
    first.signal(signal.SIGTERM)
    await first.abandon()
    seen = 0
    while seen < 1_000_000:
        seen += len(await second.read())
    second.kill()
    assert isinstance(await second.wait(), Exit)
    assert first.ending is None
    await session.ping()


async def test_a_cancelled_attach_leaves_the_exec_to_the_next(place: Place) -> None:
    session = place.session
    process = await spawn(session, "cat", flags=HELD | ExecFlag.STDIN_OPEN)
    await process.write(b"x" * 1000)
    assert len(await process.read()) == 1000
    session.drop(process)
    for turns in range(6):
        for offset in (500, 0):
            task = asyncio.create_task(session.attach(process.id, offset))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                session.drop(await task)
    again = await session.attach(process.id, 600)
    assert await again.read() == b"x" * 400
    task = asyncio.create_task(session.attach(process.id, 0))
    with pytest.raises(StateError):
        await task
    session.drop(again)
    task = asyncio.create_task(session.attach(process.id, 0))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await session.forget(process.id)
    assert await session.list() == []
    await session.ping()


async def test_the_answer_to_a_cancelled_attach_is_not_taken_for_the_next_ones(
    puppet: tuple[Session, Puppet],
) -> None:
    session, guest = puppet
    first = asyncio.create_task(session.attach(9, 0))
    await guest.question(Ask.ATTACH)
    first.cancel()
    second = asyncio.create_task(session.attach(9, 3))
    await session.ping()
    guest.send(Answer.STARTED, 9, PID)
    guest.send(Answer.OUT, 9, U64.pack(0) + b"all of it")
    await session.ping()
    guest.send(Answer.OUT, 9, U64.pack(9) + b"more")
    guest.send(Answer.STARTED, 9, PID)
    guest.send(Answer.OUT, 9, U64.pack(3) + b" of it")
    process = await second
    assert await process.read() == b" of it"
    assert first.cancelled()
    assert not session.lost.done()


async def test_a_cancelled_forget_of_a_cancelled_attach_releases_nothing(
    puppet: tuple[Session, Puppet],
) -> None:
    """The cancellation is raised once the command is gone."""
    session, guest = puppet
    attach = asyncio.create_task(session.attach(9))
    await guest.question(Ask.ATTACH)
    attach.cancel()
    await asyncio.wait([attach])
    forget = asyncio.create_task(session.forget(9))
    await guest.question(Ask.KILL)
    forget.cancel()
    await asyncio.sleep(0)
    assert not forget.done()
    guest.send(Answer.STARTED, 9, PID)
    guest.send(Answer.EXIT, 9, exit_payload(9, code=2))
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(forget, 10)
    assert guest.sent(Ask.FORGET) == []


async def test_a_spawn_that_is_cancelled_twice_leaves_nothing_held(
    puppet: tuple[Session, Puppet],
) -> None:
    session, guest = puppet
    task = asyncio.create_task(session.spawn(ExecRequest(["sleep"], flags=HELD)))
    operation_id, _ = await guest.question(Ask.EXEC)
    for _ in range(2):
        task.cancel()
        await guest.question(Ask.KILL)
    guest.send(Answer.STARTED, operation_id, PID)
    guest.send(Answer.EXIT, operation_id, exit_payload(9, code=2))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await guest.question(Ask.FORGET))[0] == operation_id


async def test_an_attached_stdin_is_closed_once(puppet: tuple) -> None:
    session, guest = puppet
    guest.answers[Ask.EXEC] = [(Answer.STARTED, PID)]
    process = await spawn(session, "cat")
    process.write_eof()
    process.write_eof()
    process.resize(24, 80)
    process.signal(2, group=True)
    await session.ping()
    assert guest.sent(Ask.STDIN) == [b""]
    assert guest.sent(Ask.RESIZE) == [b"\x18\0\x50\0"]
    assert guest.sent(Ask.SIGNAL) == [U32.pack(2) + b"\1"]


async def test_a_wrong_signal_or_size_is_refused_by_name(puppet: tuple) -> None:
    session, guest = puppet
    guest.answers[Ask.EXEC] = [(Answer.STARTED, PID)]
    process = await spawn(session, "cat")
    with pytest.raises(InvalidSpecError, match="signal"):
        process.signal(-1)
    with pytest.raises(InvalidSpecError, match="rows"):
        process.resize(70000, 80)


async def test_input_waits_for_the_guest(puppet: tuple) -> None:
    session, guest = puppet
    guest.answers[Ask.EXEC] = [(Answer.STARTED, PID)]
    process = await spawn(session, "cat")
    writing = asyncio.create_task(process.write(b"x" * 300_000))
    await asyncio.sleep(0)
    await session.ping()
    assert sum(map(len, guest.sent(Ask.STDIN))) == 256 * 1024
    guest.send(Answer.STDIN_ACK, process.id, U64.pack(100_000))
    assert await writing
    await session.ping()
    assert sum(map(len, guest.sent(Ask.STDIN))) == 300_000


async def test_cancelling_a_spawn_kills_what_was_started(puppet: tuple) -> None:
    session, guest = puppet
    task = asyncio.create_task(session.spawn(ExecRequest(["sleep"])))
    operation_id, _ = await guest.question(Ask.EXEC)
    task.cancel()
    await guest.question(Ask.KILL)
    guest.send(Answer.STARTED, operation_id, PID)
    guest.send(Answer.EXIT, operation_id, exit_payload(9, code=2))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not session.lost.done()


async def test_a_cancelled_spawn_of_a_held_exec_leaves_nothing_held(place: Place) -> None:
    for turns in range(6):
        task = asyncio.create_task(spawn(place.session, "sleep", "60", flags=HELD))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            process = await task
            await process.abandon()
            await place.session.forget(process.id)
        assert await place.session.list() == []


async def test_what_is_above_the_number_of_execs_waits_for_an_end_or_a_drop(
    puppet: tuple[Session, Puppet], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, guest = puppet
    monkeypatch.setattr(session, "_places", Places(2))
    tasks = [asyncio.create_task(spawn(session, "true")) for _ in range(4)]

    async def asked(number: int) -> list[int]:
        async with asyncio.timeout(20):
            while len(found := [one for op, one, _ in guest.frames if op == Ask.EXEC]) < number:
                await asyncio.sleep(0.01)
        assert len(found) == number
        return found

    first, second = await asked(2)
    for one in (first, second):
        guest.send(Answer.STARTED, one, PID)
    await tasks[0]
    held = await tasks[1]
    await asked(2)
    guest.send(Answer.EXIT, first, exit_payload())
    await asked(3)
    session.drop(held)
    assert len(set(await asked(4))) == 4
    session.lose(SandboxLostError("the end of the test", op="exec"))
    await asyncio.wait(tasks)
    assert isinstance(tasks[3].exception(), SandboxLostError)
