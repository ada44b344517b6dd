"""Checks of commands that are held: left alone, listed, attached to again, forgotten."""

import pytest

import ringfence
from ringfence.testing.base import Checks, until


class AttachingChecks(Checks):
    """A command that outlives its block, and who attaches to it."""

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
