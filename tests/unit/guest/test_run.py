"""`Session.run` on the mock's guest and on the real one."""

import asyncio
import errno
from collections.abc import AsyncIterator

import pytest

from ringfence.errors import InvalidSpecError
from ringfence.guest.protocol import Answer, Ask, ExecFlag
from ringfence.guest.request import Exit, NotStarted
from ringfence.spec import Reason

from .commands import PATH, command
from .conftest import Place
from .puppets import PID, Puppet, exit_payload

MIB = 1024 * 1024


async def test_exit_code_and_both_streams_come_back(place: Place) -> None:
    ending = await place.session.run(command("sh", "-c", "echo out; echo err >&2; exit 3"))
    assert isinstance(ending, Exit)
    assert (ending.exit_code, ending.signal, ending.reason) == (3, None, Reason.EXITED)
    assert (ending.stdout, ending.stderr) == (b"out\n", b"err\n")
    assert (ending.stdout_total, ending.stderr_total) == (4, 4)


async def test_a_missing_program_is_not_started(place: Place) -> None:
    ending = await place.session.run(command("no-such-program-here"))
    assert isinstance(ending, NotStarted)
    assert (ending.errno, ending.stage) == (errno.ENOENT, 4)


async def test_a_missing_directory_is_not_started(place: Place) -> None:
    ending = await place.session.run(command("true", cwd="/no/such/directory"))
    assert isinstance(ending, NotStarted)
    assert (ending.errno, ending.stage) == (errno.ENOENT, 3)


async def test_an_exec_signaled_by_itself_names_the_signal(place: Place) -> None:
    ending = await place.session.run(command("sh", "-c", "kill -TERM $$"))
    assert isinstance(ending, Exit)
    assert (ending.signal, ending.exit_code, ending.reason) == (15, None, Reason.SIGNALED)


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 3 * MIB, 50 * MIB])
async def test_stdin_of_any_size_arrives_whole(place: Place, size: int) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    ending = await place.session.run(command("cat", stdin=data))
    assert isinstance(ending, Exit)
    assert ending.stdout == data


async def test_stdin_from_an_iterator_of_50_mib_arrives_whole(place: Place) -> None:
    block = bytes(range(256)) * 4096

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield block

    ending = await place.session.run(command("cat", stdin=blocks()))
    assert isinstance(ending, Exit)
    assert ending.stdout == block * 50


async def test_a_command_may_end_before_its_stdin_does(place: Place) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    ending = await asyncio.wait_for(place.session.run(command("true", stdin=endless())), 20)
    assert isinstance(ending, Exit)
    assert ending.exit_code == 0


async def test_an_error_of_the_stdin_iterator_is_raised_after_a_kill(place: Place) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise LookupError("source")

    with pytest.raises(LookupError, match="source"):
        await place.session.run(command("cat", stdin=broken()))
    assert [row for row in await place.session.list() if row.running] == []


async def test_a_cancellation_goes_before_the_error_of_the_stdin_iterator(puppet: tuple) -> None:
    """One that comes while the command is killed for that error is not lost to it."""
    session, guest = puppet

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise LookupError("source")

    task = asyncio.create_task(session.run(command("cat", stdin=broken())))
    operation_id, _ = await guest.question(Ask.KILL)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    guest.send(Answer.STARTED, operation_id, PID)
    guest.send(Answer.EXIT, operation_id, exit_payload(9, code=2))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not session.lost.done()


async def test_a_mebibyte_of_arguments_arrives(place: Place) -> None:
    words = ["x" * 1023] * 1024
    ending = await place.session.run(command("echo", *words))
    assert isinstance(ending, Exit)
    assert len(ending.stdout) == MIB


async def test_what_fits_no_frame_is_refused_and_the_session_goes_on(place: Place) -> None:
    with pytest.raises(InvalidSpecError, match="one frame"):
        await place.session.run(command("echo", *["x" * MIB] * 5))
    ending = await place.session.run(command("true"))
    assert isinstance(ending, Exit)


async def test_a_nul_in_an_argument_is_refused_by_name(place: Place) -> None:
    with pytest.raises(InvalidSpecError, match="args"):
        await place.session.run(command("echo", "a\0b"))


async def test_output_above_the_cap_is_counted_and_dropped(place: Place) -> None:
    request = command("cat", stdin=b"x" * 3 * MIB, stdout_cap=1000)
    ending = await place.session.run(request)
    assert isinstance(ending, Exit)
    assert ending.stdout == b"x" * 1000
    assert (ending.stdout_total, ending.reason) == (3 * MIB, Reason.EXITED)


async def test_the_output_cap_can_kill(place: Place) -> None:
    flags = ExecFlag.SEARCH_PATH | ExecFlag.KILL_ON_CAP
    request = command("cat", stdin=b"x" * MIB, stdout_cap=1000, flags=flags)
    ending = await place.session.run(request)
    assert isinstance(ending, Exit)
    assert ending.reason is Reason.OUTPUT_LIMIT
    assert ending.stdout == b"x" * 1000


async def test_stderr_can_join_stdout(place: Place) -> None:
    flags = ExecFlag.SEARCH_PATH | ExecFlag.STDERR_TO_STDOUT
    ending = await place.session.run(command("sh", "-c", "echo a; echo b >&2", flags=flags))
    assert isinstance(ending, Exit)
    assert (ending.stdout, ending.stderr) == (b"a\nb\n", b"")


async def test_a_timeout_ends_the_command(place: Place) -> None:
    ending = await place.session.run(command("sleep", "60", timeout=0.1))
    assert isinstance(ending, Exit)
    assert ending.reason is Reason.TIMEOUT
    assert ending.exit_code is None


async def test_a_command_that_ignores_sigterm_is_killed_after_the_grace(place: Place) -> None:
    script = "trap '' TERM; echo armed; sleep 60; sleep 60"
    ending = await place.session.run(command("sh", "-c", script, timeout=0.3, grace=0.2))
    assert isinstance(ending, Exit)
    assert (ending.reason, ending.signal, ending.stdout) == (Reason.TIMEOUT, 9, b"armed\n")


async def test_a_timeout_before_the_start_was_told_leaves_the_grace(place: Place) -> None:
    ending = await place.session.run(command("sleep", "300", timeout=0.001, grace=60))
    assert isinstance(ending, Exit)
    assert (ending.reason, ending.signal) == (Reason.TIMEOUT, 15)


async def test_cancellation_leaves_nothing_running(place: Place) -> None:
    task = asyncio.create_task(place.session.run(command("sleep", "60")))
    while not any(row.running for row in await place.session.list()):
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [row for row in await place.session.list() if row.running] == []


async def test_two_hundred_commands_at_once_all_end(place: Place) -> None:
    runs = [place.session.run(command("echo", str(n))) for n in range(200)]
    endings = await asyncio.gather(*runs)
    assert [ending.stdout for ending in endings] == [b"%d\n" % n for n in range(200)]


async def test_the_environment_is_what_was_given(place: Place) -> None:
    ending = await place.session.run(command("env", env={**PATH, "A": "b c\n=d"}))
    assert isinstance(ending, Exit)
    assert sorted(ending.stdout.split(b"\n")) == [b"", b"=d", b"A=b c", b"PATH=/usr/bin:/bin"]


async def test_a_cancelled_run_gives_up_a_guest_that_does_not_kill(
    puppet: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, guest = puppet
    monkeypatch.setattr("ringfence.guest.execs.ABANDON_SECONDS", 0.1)
    task = asyncio.create_task(session.run(command("true")))
    assert isinstance(guest, Puppet)
    await guest.question(0x10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "did not kill" in session.lost.result().message


async def test_many_that_are_cancelled_at_once_are_gone_in_time(place: Place) -> None:
    """As long as one may take: to kill one does not cost a look at all the others."""
    session, number = place.session, 700
    running = [asyncio.create_task(session.run(command("sleep", "60"))) for _ in range(number)]
    while len(await session.list()) < number:
        await asyncio.sleep(0.05)
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    assert not session.lost.done()
    assert await session.list() == []
