"""How a session begins, is kept alive and ends."""

import asyncio
import errno
from collections.abc import Callable

import pytest

from ringfence.errors import (
    DeadlineExceededError,
    GuestError,
    InvalidSpecError,
    NotFoundError,
    SandboxLostError,
    StateError,
    UnsupportedError,
)
from ringfence.guest.protocol import U32, U64, Answer, Ask, Cred, string
from ringfence.guest.request import ExecRequest, Exit
from ringfence.guest.session import Session
from ringfence.sandbox import deleting
from ringfence.spec import Reason

from .conftest import Place
from .puppets import PID, Puppet, guest_frame

WHO = Cred(1000, 1000)


async def test_the_guest_says_what_it_is(place: Place) -> None:
    hello = place.session.hello
    assert hello.version == 1
    assert 0 < hello.reserved_uid < 65536
    assert hello.epoch >= 1
    assert hello.build
    assert await place.session.ping() >= 0


async def test_a_user_is_looked_up_inside(place: Place) -> None:
    root = await place.session.user("root")
    assert (root.uid, root.gid, root.name) == (0, 0, "root")
    assert root.home == "/root"
    by_number = await place.session.user("4242:4243")
    assert (by_number.uid, by_number.gid) == (4242, 4243)
    alone = await place.session.user("4242")
    assert (alone.uid, alone.gid, alone.groups) == (4242, 4242, ())
    with pytest.raises(NotFoundError, match="no-such-user"):
        await place.session.user("no-such-user")
    with pytest.raises(InvalidSpecError, match="user"):
        await place.session.user("a\0b")


async def test_how_full_a_tmpfs_is_can_be_asked(place: Place) -> None:
    """Of what is none, or not there, nothing is told; the mock has none at all."""
    if not place.real:
        with pytest.raises(UnsupportedError, match="space"):
            await place.session.spaces(["/tmp"])
        return
    shm, proc, none, long = await place.session.spaces(["/dev/shm", "/proc", "/none", "/" * 5000])
    assert 0 < shm.free <= shm.size
    assert 0 < shm.free_files <= shm.files
    assert proc == none == long == (0, 0, 0, 0)
    assert await place.session.spaces([]) == []
    with pytest.raises(GuestError, match="errno 7"):
        await place.session.spaces(["/tmp"] * 257)


async def test_the_lease_can_be_changed(place: Place) -> None:
    await place.session.lease(20.0, 3600.0)


async def test_shutdown_ends_the_sandbox(place: Place) -> None:
    process = await place.session.spawn(ExecRequest(["sleep", "60"], env={"PATH": "/bin"}))
    await place.session.shutdown()
    assert place.session.lost.done()
    ending = await process.wait()
    assert isinstance(ending, Exit)
    assert ending.reason is Reason.SANDBOX_LOST


async def test_a_command_whose_start_was_not_told_yet_gets_its_sigterm(place: Place) -> None:
    """The guest tells of a start up to 20 ms late; that must cost no command its grace."""
    running = asyncio.create_task(
        place.session.run(ExecRequest(["sleep", "300"], env={"PATH": "/usr/bin:/bin"}))
    )
    while not place.session.operations():
        await asyncio.sleep(0)
    assert await deleting._terminate(place.session, 10.0) == 1
    ending = await asyncio.wait_for(running, 5)
    assert isinstance(ending, Exit)
    assert (ending.reason, ending.signal) == (Reason.SIGNALED, 15)


@pytest.mark.parametrize("size", [1, 20, 70_000, 3_000_000])
async def test_what_comes_before_the_answer_is_skipped(size: int) -> None:
    stale = guest_frame(Answer.HELLO, 0, b"m" * 60)
    guest = Puppet(prefix=(stale * (size // len(stale) + 1))[:size])
    session = await Session.start(guest.connect)
    assert session.hello.build == "puppet"
    assert await session.ping() >= 0
    await session.close()


async def test_what_comes_before_hello_was_sent_is_skipped() -> None:
    guest = Puppet()

    async def connect(factory: Callable[[], asyncio.BaseProtocol]) -> asyncio.Transport:
        transport = await guest.connect(factory)
        for operation_id in (5, 0):
            guest.send(Answer.OUT, operation_id, U64.pack(0) + b"of the session before")
        await asyncio.sleep(0.05)
        return transport

    session = await Session.start(connect)
    assert await session.ping() >= 0
    await session.close()


async def test_the_raw_marker_goes_before_hello() -> None:
    received = bytearray()

    class Listener(Puppet):
        def data_received(self, data: bytes) -> None:
            received.extend(data)

    guest = Listener()
    with pytest.raises(DeadlineExceededError):
        await Session.start(guest.connect, marker=b"M" * 16, next_marker=b"N" * 16, deadline=0.1)
    assert received.startswith(b"M" * 16)
    assert received[16 + 9 + 4 + 16 :].startswith(b"N" * 16)


async def test_another_version_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="version 9"):
        await Session.start(Puppet(version=9).connect)


async def test_a_mute_guest_meets_the_deadline_and_the_stream_is_closed() -> None:
    guest = Puppet(mute=True)
    with pytest.raises(DeadlineExceededError, match=r"0\.1 s"):
        await Session.start(guest.connect, deadline=0.1)
    assert guest.transport is not None
    await asyncio.sleep(0.05)
    assert guest.transport.is_closing()


async def test_an_error_of_connect_is_raised_as_it_is() -> None:
    async def connect(_: object) -> asyncio.Transport:
        raise SandboxLostError("gone")

    with pytest.raises(SandboxLostError, match="gone"):
        await Session.start(connect)


async def test_a_silent_guest_is_lost_after_its_lease() -> None:
    guest = Puppet()
    session = await Session.start(guest.connect, lease=0.15)
    guest.pings = False
    pending = asyncio.create_task(session.run(ExecRequest(["true"])))
    reason = await asyncio.wait_for(session.lost, 10)
    assert "sign of life" in reason.message
    ending = await pending
    assert isinstance(ending, Exit)
    assert ending.reason is Reason.SANDBOX_LOST


async def test_an_answering_guest_is_kept_alive() -> None:
    guest = Puppet()
    session = await Session.start(guest.connect, lease=0.06)
    await asyncio.sleep(0.5)
    assert not session.lost.done()
    await session.close()


async def test_a_busy_event_loop_speaks_at_its_first_tick_though_it_spoke_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A whole interval later the lease would be over. What was said a moment ago is enough."""
    session = await Session.start(Puppet().connect, lease=3000.0)
    loop, send = asyncio.get_running_loop(), session.send
    now = loop.time()
    for seconds, pings in ((499, 0), (501, 1), (2900, 1)):
        sent: list[int] = []
        session._heard = True
        monkeypatch.setattr(loop, "time", lambda: now)
        send(Ask.LIST, 1)
        monkeypatch.setattr(session, "send", lambda op, *_, to=sent: to.append(op))
        monkeypatch.setattr(loop, "time", lambda after=seconds: now + after)
        session._on_tick()
        assert sent == [Ask.PING] * pings
    monkeypatch.undo()
    await session.close()


async def test_a_suspended_session_does_not_expect_anything() -> None:
    guest = Puppet()
    session = await Session.start(guest.connect, lease=0.06)
    guest.answers[Ask.EXEC] = [(Answer.STARTED, PID)]
    guest.pings = False
    session.suspend()
    session.suspend()
    await asyncio.sleep(0.5)
    assert not session.lost.done()
    session.resume()
    assert "sign of life" in (await asyncio.wait_for(session.lost, 10)).message


async def test_the_time_of_a_pause_does_not_count() -> None:
    session = await Session.start(Puppet().connect)
    session.suspend()
    before = session.clock()
    await asyncio.sleep(0.05)
    assert session.clock() == before
    session.resume()
    assert session.clock() - before < 0.05
    await session.close()


async def test_the_end_of_the_stream_ends_everything_in_its_own_way(puppet: tuple) -> None:
    session, guest = puppet
    guest.answers[Ask.EXEC] = [(Answer.STARTED, PID), (Answer.OUT, U64.pack(0) + b"part")]
    run = asyncio.create_task(session.run(ExecRequest(["a"])))
    process = await session.spawn(ExecRequest(["b"]))
    stat = asyncio.create_task(session.files.stat("/x", WHO))
    reader = session.files.open_read("/x", WHO)
    writing = asyncio.create_task(session.files.write("/x", WHO, b"x" * 3_000_000))
    await session.ping()
    guest.hang_up()
    ending = await run
    assert isinstance(ending, Exit)
    assert (ending.reason, ending.stdout, ending.status) == (Reason.SANDBOX_LOST, b"part", None)
    assert (ending.exit_code, ending.signal) == (None, None)
    assert await process.read() == b"part"
    assert await process.read() == b""
    assert not await process.write(b"x")
    for pending in (stat, writing, reader.read()):
        with pytest.raises(SandboxLostError):
            await pending
    with pytest.raises(SandboxLostError):
        await session.ping()
    with pytest.raises(SandboxLostError):
        await session.run(ExecRequest(["true"]))


async def test_a_closed_session_refuses_with_state_error(puppet: tuple) -> None:
    session, _ = puppet
    await session.close()
    await session.close()
    with pytest.raises(StateError, match="closed"):
        await session.run(ExecRequest(["true"]))
    with pytest.raises(StateError):
        await session.files.stat("/x", WHO)


async def test_a_guest_that_forgets_a_timeout_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringfence.guest.exec_life.OVERTIME_SECONDS", 0.05)
    guest = Puppet()
    guest.answers[Ask.EXEC] = [(Answer.STARTED, PID)]
    session = await Session.start(guest.connect, lease=0.06)
    ending = await asyncio.wait_for(session.run(ExecRequest(["true"], timeout=0.01)), 10)
    assert isinstance(ending, Exit)
    assert ending.reason is Reason.SANDBOX_LOST
    assert "at its timeout" in session.lost.result().message


async def test_an_unread_exec_may_be_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringfence.guest.exec_life.OVERTIME_SECONDS", 0.05)
    guest = Puppet()
    guest.answers[Ask.EXEC] = [(Answer.STARTED, PID), (Answer.OUT, U64.pack(0) + b"x")]
    session = await Session.start(guest.connect, lease=0.06)
    process = await session.spawn(ExecRequest(["true"], timeout=0.01))
    await asyncio.sleep(0.4)
    assert not session.lost.done()
    assert await process.read() == b"x"
    assert "at its timeout" in (await asyncio.wait_for(session.lost, 10)).message


async def test_an_unanswered_question_meets_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringfence.guest.files.ANSWER_SECONDS", 0.05)
    session = await Session.start(Puppet().connect, lease=0.06)
    with pytest.raises(DeadlineExceededError, match=r"files\.stat"):
        await asyncio.wait_for(session.files.stat("/x", WHO), 10)
    reader = session.files.open_read("/x", WHO)
    with pytest.raises(DeadlineExceededError, match=r"files\.read"):
        await asyncio.wait_for(reader.read(), 10)
    assert not session.lost.done()
    await session.close()


async def test_ids_wrap_around_and_skip_those_in_use(puppet: tuple) -> None:
    session, guest = puppet
    guest.answers[Ask.EXEC] = [(Answer.STARTED, PID)]
    first = await session.spawn(ExecRequest(["a"]))
    session._next_id = 2**31 - 1
    session._first_id = 1
    last = await session.spawn(ExecRequest(["b"]))
    wrapped = await session.spawn(ExecRequest(["c"]))
    assert last.id == 2**31 - 1
    assert 0 < wrapped.id < last.id
    assert wrapped.id != first.id


FAIL = U32.pack(errno.EPROTO) + b"\0" + string(b"x")


@pytest.mark.parametrize(
    ("op", "operation_id", "payload"),
    [
        (Answer.HELLO, 0, b""),
        (Answer.FAIL, 0, FAIL),
        (0x99, 0, b""),
        (Answer.DONE, 0, b""),
        (Answer.EXIT, 12345, b""),
        (Answer.OUT, "exec", b"1234567"),
        (Answer.OUT, "exec", U64.pack(1) + b"x"),
        (Answer.OUT, "exec", U64.pack(2**64 - 1) + b"x"),
        (Answer.STARTED, "exec", PID),
        (Answer.STARTED, "exec", b""),
        (Answer.FAIL, "exec", FAIL + b"x"),
        (Answer.EXIT, "exec", b"short"),
        (Answer.EXIT, "exec", bytes(4) + b"\xee" + bytes(113)),
        (Answer.STDIN_ACK, "exec", U64.pack(1)),
        (Answer.DATA, "exec", U64.pack(0) + b"x"),
        (Answer.DONE, "exec", b""),
        (0x99, "exec", b""),
    ],
)
async def test_what_breaks_the_protocol_ends_the_session(
    puppet: tuple, op: int, operation_id: int | str, payload: bytes
) -> None:
    session, guest = puppet
    guest.answers[Ask.EXEC] = [(Answer.STARTED, PID)]
    flags = 32 | 1
    process = await session.spawn(ExecRequest(["a"], flags=flags))
    guest.send(op, process.id if operation_id == "exec" else operation_id, payload)
    reason = await asyncio.wait_for(session.lost, 10)
    assert isinstance(reason, GuestError)
    ending = await process.wait()
    assert isinstance(ending, Exit)
    assert ending.reason is Reason.SANDBOX_LOST


@pytest.mark.parametrize("length", [0, 4, 1024 * 1024 + 6, 2**32 - 1])
async def test_a_frame_of_a_wrong_length_ends_the_session(puppet: tuple, length: int) -> None:
    session, guest = puppet
    guest.send_bytes(length.to_bytes(4, "little") + b"\x42" + bytes(4))
    assert isinstance(await asyncio.wait_for(session.lost, 10), GuestError)


async def test_a_frame_of_the_largest_length_is_taken(puppet: tuple) -> None:
    session, guest = puppet
    payload = U64.pack(0) + b"x" * (1024 * 1024 - 8)
    guest.answers[Ask.EXEC] = [(Answer.STARTED, PID), (Answer.OUT, payload)]
    process = await session.spawn(ExecRequest(["a"]))
    assert await process.read(size=2**20) == payload[8:]


async def test_more_output_than_the_window_ends_the_session(puppet: tuple) -> None:
    session, guest = puppet
    guest.answers[Ask.EXEC] = [(Answer.STARTED, PID)]
    process = await session.spawn(ExecRequest(["a"]))
    for at in range(0, 17 * 65536, 65536):
        guest.send(Answer.OUT, process.id, U64.pack(at) + bytes(65536))
    assert "window" in (await asyncio.wait_for(session.lost, 10)).message
    assert len(process.stdout.data) == 1024 * 1024


async def test_more_output_than_the_cap_ends_the_session(puppet: tuple) -> None:
    session, guest = puppet
    guest.answers[Ask.EXEC] = [(Answer.STARTED, PID), (Answer.OUT, U64.pack(0) + b"12345")]
    await session.run(ExecRequest(["a"], stdout_cap=4))
    assert "cap" in session.lost.result().message


async def test_late_frames_of_ended_operations_are_ignored(puppet: tuple) -> None:
    session, guest = puppet
    guest.answers[Ask.EXEC] = [(Answer.FAIL, FAIL), (Answer.OUT, U64.pack(0) + b"x")]
    await session.run(ExecRequest(["a"]))
    await session.ping()
    assert not session.lost.done()
