"""Checks of `spawn`."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

import ringfence
from ringfence import Reason
from ringfence.testing.attaching import AttachingChecks
from ringfence.testing.base import running
from ringfence.testing.terminals import TerminalChecks


class ProcessChecks(AttachingChecks, TerminalChecks):
    """A command under way: its streams, its signals, its end."""

    async def test_output_is_read_while_it_runs(self, sandbox: ringfence.Sandbox) -> None:
        """What is written to cat comes back before it ends."""
        async with sandbox.spawn(["cat"]) as process:
            await process.write(b"first\n")
            assert await process.stdout.readline() == b"first\n"
            await process.write("second\n")
            assert await process.stdout.readline() == b"second\n"
            assert process.running
            assert process.pid > 0

    async def test_streams_are_iterated(self, sandbox: ringfence.Sandbox) -> None:
        """A stream is an async iterator of bytes, and of lines."""
        async with sandbox.spawn(shell="echo one; echo two; echo three") as process:
            lines = [line async for line in process.stdout.lines()]
        assert lines == [b"one\n", b"two\n", b"three\n"]
        async with sandbox.spawn(shell="echo err >&2") as process:
            assert b"".join([chunk async for chunk in process.stderr]) == b"err\n"

    async def test_the_last_line_may_have_no_end(self, sandbox: ringfence.Sandbox) -> None:
        """It is given as it is, then b""."""
        async with sandbox.spawn(["echo", "-n", "x"]) as process:
            assert await process.stdout.readline() == b"x"
            assert await process.stdout.readline() == b""

    async def test_wait_collects_what_nobody_read(self, sandbox: ringfence.Sandbox) -> None:
        """The result holds both streams, and the same result comes again."""
        async with sandbox.spawn(shell="echo out; echo err >&2; exit 5") as process:
            result = await process.wait()
            assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 5)
            assert await process.wait() == result

    async def test_wait_can_be_cancelled(self, sandbox: ringfence.Sandbox) -> None:
        """Cancelling it changes nothing for the command."""
        async with sandbox.spawn(["cat"]) as process:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(process.wait(), 0.1)
            await process.write(b"still here")
            process.close_stdin()
            assert (await process.wait()).stdout == b"still here"

    async def test_leaving_the_block_kills(self, sandbox: ringfence.Sandbox) -> None:
        """Nothing of the command runs after its `async with`."""
        async with sandbox.spawn(["sleep", "300"]):
            assert await running(sandbox) == 1
        assert await running(sandbox) == 0

    async def test_a_cancellation_while_it_is_closed_is_raised_when_it_is_gone(
        self, sandbox: ringfence.Sandbox
    ) -> None:
        """aclose is not interrupted, and who was cancelled hears of it."""
        process = await sandbox.spawn(["sleep", "300"])
        closing = asyncio.create_task(process.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert not process.running

    async def test_a_signal_by_name(self, sandbox: ringfence.Sandbox) -> None:
        """TERM ends sleep, and the result tells the signal."""
        async with sandbox.spawn(["sleep", "300"]) as process:
            process.signal("TERM")
            result = await process.wait()
        assert (result.reason, result.signal) == (Reason.SIGNALED, 15)

    async def test_a_signal_by_the_commands_number(self, sandbox: ringfence.Sandbox) -> None:
        """sandbox.signal reaches a listed command; an unknown one is NotFoundError."""
        async with sandbox.spawn(["sleep", "300"]) as process:
            await sandbox.signal(process.id, "KILL")
            assert (await process.wait()).signal == 9
        with pytest.raises(ringfence.NotFoundError):
            await sandbox.signal(987654, "TERM")

    @pytest.mark.parametrize("signal", ["NOPE", 0, 65, -1, 1.5, True, None])
    async def test_what_is_no_signal_is_refused(
        self, sandbox: ringfence.Sandbox, signal: str | int
    ) -> None:
        """It is InvalidSpecError."""
        async with sandbox.spawn(["cat"]) as process:
            with pytest.raises(ringfence.InvalidSpecError):
                process.signal(signal)

    async def test_kill_ends_the_family(self, sandbox: ringfence.Sandbox) -> None:
        """The reason is KILLED."""
        async with sandbox.spawn(["sleep", "300"]) as process:
            process.kill()
            assert (await process.wait()).reason is Reason.KILLED

    async def test_writing_to_an_ended_command(self, sandbox: ringfence.Sandbox) -> None:
        """It is StateError, not a broken pipe."""
        async with sandbox.spawn(["true"]) as process:
            await process.wait()
            with pytest.raises(ringfence.StateError):
                await process.write(b"x")

    async def test_communicate(self, sandbox: ringfence.Sandbox) -> None:
        """Input goes in, its end follows, output is collected."""
        data = os.urandom(500_000)
        async with sandbox.spawn(["cat"]) as process:
            assert (await process.communicate(data)).stdout == data

    async def test_communicate_with_a_command_that_does_not_read(
        self, sandbox: ringfence.Sandbox
    ) -> None:
        """What was not read when it ended is no error: the result says how it ended."""
        async with sandbox.spawn(["sh", "-c", "exit 4"]) as process:
            assert (await process.communicate(b"x" * 5_000_000)).exit_code == 4

    async def test_communicate_needs_a_stdin(self, sandbox: ringfence.Sandbox) -> None:
        """Input for a command whose stdin was given at its start is StateError."""
        async with sandbox.spawn(["sleep", "300"], stdin=b"given") as process:
            with pytest.raises(ringfence.StateError):
                await process.communicate(b"more")

    async def test_stdin_can_be_a_stream(self, sandbox: ringfence.Sandbox) -> None:
        """A spawned command reads an async iterable, too."""

        async def pieces() -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        async with sandbox.spawn(["cat"], stdin=pieces()) as process:
            assert (await process.wait()).stdout == b"ab"

    async def test_a_slow_reader_gets_everything(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """4 MiB are read in small pieces; nothing is lost and the others go on."""
        data = os.urandom(1024 * 1024)
        await sandbox.files.write(f"{place}/data", data)
        async with sandbox.spawn(["cat", *[f"{place}/data"] * 4]) as process:
            head = await process.stdout.read(10)
            assert (await sandbox.exec(["echo", "meanwhile"])).stdout == b"meanwhile\n"
            rest = await process.stdout.read_all()
            result = await process.wait()
        assert head + rest == data * 4
        assert result.stdout_total == 4 * len(data)

    async def test_a_missing_program_cannot_be_spawned(self, sandbox: ringfence.Sandbox) -> None:
        """It is ProcessError with the code 127."""
        with pytest.raises(ringfence.ProcessError) as caught:
            await sandbox.spawn(["no-such-program-here"])
        assert caught.value.context["exit_code"] == 127

    async def test_a_timeout_ends_a_spawned_command(self, sandbox: ringfence.Sandbox) -> None:
        """The result is TIMEOUT."""
        async with sandbox.spawn(["sleep", "300"], timeout=0.2) as process:
            assert (await process.wait()).reason is Reason.TIMEOUT

    async def test_kill_all_ends_every_command(self, sandbox: ringfence.Sandbox) -> None:
        """Nothing runs afterwards."""
        async with sandbox.spawn(["sleep", "300"]), sandbox.spawn(["sleep", "300"]) as process:
            assert await sandbox.kill_all() >= 2
            assert (await process.wait()).reason is Reason.KILLED
        assert await running(sandbox) == 0

    async def test_many_run_at_once(self, sandbox: ringfence.Sandbox) -> None:
        """40 spawned commands all end with their own output."""

        async def one(number: int) -> bytes:
            async with sandbox.spawn(["echo", str(number)]) as process:
                return (await process.wait()).stdout

        outputs = await asyncio.gather(*(one(number) for number in range(40)))
        assert outputs == [b"%d\n" % number for number in range(40)]

    @pytest.mark.parametrize("size", [0, -1, "5"])
    async def test_no_bytes_cannot_be_read(self, sandbox: ringfence.Sandbox, size: int) -> None:
        """A number of bytes that is none is refused: b"" would say that the stream ended."""
        async with sandbox.spawn(["echo", "x"]) as process:
            with pytest.raises(ringfence.InvalidSpecError):
                await process.stdout.read(size)
            assert await process.stdout.read_all() == b"x\n"
