"""Checks of `spawn` and of what is found again."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

import ringfence
from ringfence import Reason, Terminal
from ringfence.backends.base import Features
from ringfence.testing.base import Checks, running, until


class ProcessChecks(Checks):
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

    async def test_a_held_command_outlives_its_block(self, sandbox: ringfence.Sandbox) -> None:
        """It is listed with its arguments, attached to again with its output, and forgotten."""
        async with sandbox.spawn(["cat"], hold=True) as process:
            await process.write(b"kept\n")
            number = process.id
        (listed,) = [one for one in await sandbox.processes() if one.id == number]
        assert listed.running
        assert listed.args == ("cat",)
        again = await sandbox.attach(number)
        assert await again.stdout.readline() == b"kept\n"
        await again.write("more\n")
        assert await again.stdout.readline() == b"more\n"
        assert again.stdin_total == len("kept\nmore\n")
        await sandbox.forget(number)
        assert number not in [one.id for one in await sandbox.processes()]

    async def test_a_held_result_is_there_after_the_end(self, sandbox: ringfence.Sandbox) -> None:
        """A command that ended keeps its output and its exit code until it is forgotten."""
        async with sandbox.spawn(shell="echo result; exit 7", hold=True) as process:
            number = process.id

        async def ended() -> bool:
            return not any(one.running for one in await sandbox.processes() if one.id == number)

        await until(ended)
        again = await sandbox.attach(number)
        result = await again.wait()
        assert (result.stdout, result.exit_code) == (b"result\n", 7)
        await sandbox.forget(number)

    async def test_output_from_an_offset(self, sandbox: ringfence.Sandbox) -> None:
        """attach continues where the caller left off."""
        async with sandbox.spawn(["echo", "0123456789"], hold=True) as process:
            number = process.id
            await process.wait()
        again = await sandbox.attach(number, stdout_offset=4)
        assert (await again.wait()).stdout == b"456789\n"
        await sandbox.forget(number)

    async def test_a_second_attach_takes_the_command_from_the_first(
        self, sandbox: ringfence.Sandbox
    ) -> None:
        """The streams of the first end and its wait is StateError; the second reads from its own
        offset, and the command has noticed nothing."""
        process = await sandbox.spawn(["cat"], hold=True)
        await process.write(b"0123456789\n")
        assert await process.stdout.readline() == b"0123456789\n"
        process.detach()
        first = await sandbox.attach(process.id, stdout_offset=4)
        assert first.id == process.id
        assert await first.stdout.readline() == b"456789\n"
        with pytest.raises(ringfence.StateError):
            await process.wait()
        with pytest.raises(ringfence.StateError, match="attached to again"):
            await process.write(b"x")
        second = await sandbox.attach(process.id, stdout_offset=8)
        with pytest.raises(ringfence.StateError):
            await first.wait()
        assert await first.stdout.read() == b""
        assert await second.stdout.readline() == b"89\n"
        assert second.running
        second.signal("TERM")
        assert (await second.wait()).signal == 15
        await sandbox.forget(process.id)

    async def test_a_stdin_that_is_not_open_cannot_be_written_to_by_who_attaches(
        self, sandbox: ringfence.Sandbox
    ) -> None:
        """One that was given at the start, or closed, is StateError; the command is not harmed."""
        line = "cat >/dev/null; sleep 300"
        for stdin, why in ((b"given", "when it was started"), (None, "was closed")):
            async with sandbox.spawn(shell=line, stdin=stdin, hold=True) as process:
                process.close_stdin()
            again = await sandbox.attach(process.id)
            again.close_stdin()
            with pytest.raises(ringfence.StateError, match=why):
                await again.write(b"x")
            assert again.running
            again.signal("KILL")
            assert (await again.wait()).signal == 9
            await sandbox.forget(process.id)

    async def test_a_terminal_is_typed_into_by_who_attaches(
        self, sandbox: ringfence.Sandbox, features: Features
    ) -> None:
        """And resized; without terminals, UnsupportedError."""
        if not features.pty:
            with pytest.raises(ringfence.UnsupportedError):
                await sandbox.spawn(["cat"], pty=True, hold=True)
            return
        async with sandbox.spawn(shell="read x; echo $x; stty size", pty=True, hold=True) as one:
            number = one.id
        again = await sandbox.attach(number)
        again.resize(50, 132)
        await again.write("typed\n")
        assert (await again.wait()).stdout.split()[-3:] == [b"typed", b"50", b"132"]
        await sandbox.forget(number)
        async with sandbox.spawn(["sleep", "300"], hold=True) as piped:
            number = piped.id
        again = await sandbox.attach(number)
        with pytest.raises(ringfence.StateError):
            again.resize(50, 132)
        await sandbox.forget(number)

    async def test_what_is_not_held_is_not_found(self, sandbox: ringfence.Sandbox) -> None:
        """attach and forget of an unknown number are NotFoundError."""
        with pytest.raises(ringfence.NotFoundError):
            await sandbox.attach(987654)
        with pytest.raises(ringfence.NotFoundError):
            await sandbox.forget(987654)

    async def test_detaching_needs_hold(self, sandbox: ringfence.Sandbox) -> None:
        """Only a held command can be left alone."""
        async with sandbox.spawn(["cat"]) as process:
            with pytest.raises(ringfence.StateError):
                process.detach()

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

    async def test_a_terminal(self, sandbox: ringfence.Sandbox, features: Features) -> None:
        """With pty the command has a terminal of the size asked for; else UnsupportedError."""
        line = "test -t 0 && test -t 1 && stty size"
        if not features.pty:
            with pytest.raises(ringfence.UnsupportedError):
                await sandbox.spawn(shell=line, pty=True)
            return
        async with sandbox.spawn(shell=line, pty=Terminal(rows=40, columns=100)) as process:
            assert (await process.wait()).stdout.strip() == b"40 100"

    @pytest.mark.parametrize("size", [(0, 80), (24, 65536), (-1, 80), (24, "80")], ids=str)
    async def test_a_terminal_of_no_size_is_refused(
        self, sandbox: ringfence.Sandbox, features: Features, size: tuple[int, int]
    ) -> None:
        """Before anything starts: InvalidSpecError, or UnsupportedError without terminals."""
        error = ringfence.InvalidSpecError if features.pty else ringfence.UnsupportedError
        with pytest.raises(error):
            await sandbox.spawn(["true"], pty=ringfence.Terminal(*size))

    @pytest.mark.parametrize("pty", ["yes", 5, (24, 80)], ids=str)
    async def test_what_is_no_terminal_is_refused(
        self, sandbox: ringfence.Sandbox, features: Features, pty: Any
    ) -> None:
        """Likewise, for what is neither True nor a Terminal."""
        error = ringfence.InvalidSpecError if features.pty else ringfence.UnsupportedError
        with pytest.raises(error) as caught:
            await sandbox.spawn(["true"], pty=pty)
        assert caught.value.context["fields"] == ["pty"]

    async def test_what_has_no_terminal_has_no_size(self, sandbox: ringfence.Sandbox) -> None:
        """resize of a command without a terminal is StateError, not silence."""
        async with sandbox.spawn(["sleep", "60"]) as process:
            with pytest.raises(ringfence.StateError):
                process.resize(24, 80)

    @pytest.mark.parametrize("size", [0, -1, "5"])
    async def test_no_bytes_cannot_be_read(self, sandbox: ringfence.Sandbox, size: int) -> None:
        """A number of bytes that is none is refused: b"" would say that the stream ended."""
        async with sandbox.spawn(["echo", "x"]) as process:
            with pytest.raises(ringfence.InvalidSpecError):
                await process.stdout.read(size)
            assert await process.stdout.read_all() == b"x\n"

    async def test_a_terminal_can_be_resized(
        self, sandbox: ringfence.Sandbox, features: Features
    ) -> None:
        """resize is seen inside; sizes out of range are refused."""
        if not features.pty:
            with pytest.raises(ringfence.UnsupportedError):
                await sandbox.spawn(["cat"], pty=True)
            return
        async with sandbox.spawn(shell="read x; stty size", pty=True) as process:
            with pytest.raises(ringfence.InvalidSpecError):
                process.resize(0, 80)
            process.resize(50, 132)
            await process.write("go\n")
            assert b"50 132" in (await process.wait()).stdout
