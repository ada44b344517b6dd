"""Checks of `exec`."""

import asyncio
import os
import pickle

import pytest

import ringfence
from ringfence import Reason
from ringfence.testing.base import running, some_run, until
from ringfence.testing.streams import StreamChecks
from ringfence.testing.surroundings import SurroundingsChecks


class CommandChecks(StreamChecks, SurroundingsChecks):
    """One command, from its arguments to its result, with what goes in and out of it, and what is
    around it."""

    async def test_exit_code_0_is_ok(self, sandbox: ringfence.Sandbox) -> None:
        """A command that exits with 0 is ok."""
        result = await sandbox.exec(["true"])
        assert result.ok
        assert (result.exit_code, result.signal, result.reason) == (0, None, Reason.EXITED)

    async def test_a_failing_command_is_a_result(self, sandbox: ringfence.Sandbox) -> None:
        """A command that exits with 3 raises nothing and is not ok."""
        result = await sandbox.exec(["sh", "-c", "exit 3"])
        assert not result.ok
        assert (result.exit_code, result.reason, result.shell_code) == (3, Reason.EXITED, 3)

    async def test_check_raises_for_a_failing_command(self, sandbox: ringfence.Sandbox) -> None:
        """`check()` turns a failing result into ProcessError with the exit code."""
        result = await sandbox.exec(["false"])
        with pytest.raises(ringfence.ProcessError) as caught:
            result.check()
        assert caught.value.context["exit_code"] == 1

    async def test_arguments_are_not_parsed_by_a_shell(self, sandbox: ringfence.Sandbox) -> None:
        """What a shell would expand arrives as it is written."""
        text = "$HOME; `id` | * && 'x' \"y\" \\"
        assert (await sandbox.exec(["echo", text])).stdout == text.encode() + b"\n"

    async def test_shell_runs_a_line(self, sandbox: ringfence.Sandbox) -> None:
        """shell= gives the line to /bin/sh -c."""
        result = await sandbox.exec(shell="A=1; echo $A && echo two")
        assert result.stdout == b"1\ntwo\n"

    @pytest.mark.parametrize("text", ["two words", "new\nline", "tab\t", "ünïcödé ☃", "-n", ""])
    async def test_arguments_arrive_unchanged(self, sandbox: ringfence.Sandbox, text: str) -> None:
        """Spaces, newlines, other scripts, dashes and emptiness survive."""
        result = await sandbox.exec(["sh", "-c", 'echo "<$X>"'], env={"X": text})
        assert result.stdout == f"<{text}>\n".encode()
        assert (await sandbox.exec(["echo", "a", text])).stdout == f"a {text}\n".encode()

    async def test_arguments_may_be_any_bytes(self, sandbox: ringfence.Sandbox) -> None:
        """Bytes that are not UTF-8 arrive, and show as surrogates in the result."""
        result = await sandbox.exec(["echo", b"\xff\xfe"])
        assert result.stdout == b"\xff\xfe\n"
        assert os.fsencode(result.args[1]) == b"\xff\xfe"

    async def test_no_arguments_are_refused(self, sandbox: ringfence.Sandbox) -> None:
        """An empty list is InvalidSpecError."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec([])

    async def test_a_bare_text_is_refused(self, sandbox: ringfence.Sandbox) -> None:
        """A text instead of a list is InvalidSpecError that mentions shell=."""
        with pytest.raises(ringfence.InvalidSpecError, match="shell="):
            await sandbox.exec("echo hello")

    async def test_args_and_shell_together_are_refused(self, sandbox: ringfence.Sandbox) -> None:
        """Both, or neither, is InvalidSpecError."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec(["true"], shell="true")
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec()

    async def test_a_nul_is_refused(self, sandbox: ringfence.Sandbox) -> None:
        """NUL in an argument, a variable or the directory is InvalidSpecError."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec(["echo", "a\0b"])
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec(["true"], env={"A": "a\0b"})
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec(["true"], cwd="/tmp\0")

    async def test_a_missing_program_is_127(self, sandbox: ringfence.Sandbox) -> None:
        """The result says 127, NOT_STARTED and which program."""
        result = await sandbox.exec(["no-such-program-here"])
        assert (result.exit_code, result.reason) == (127, Reason.NOT_STARTED)
        assert "no-such-program-here" in (result.error or "")

    async def test_a_file_that_is_no_program_is_126(self, sandbox: ringfence.Sandbox) -> None:
        """A file without permission to be executed gives 126."""
        result = await sandbox.exec(["/etc/passwd"])
        assert (result.exit_code, result.reason) == (126, Reason.NOT_STARTED)

    async def test_a_mebibyte_of_arguments_arrives(self, sandbox: ringfence.Sandbox) -> None:
        """16 arguments of 64 KiB are passed whole."""
        args = [chr(97 + i) * 65536 for i in range(16)]
        result = await sandbox.exec(["echo", *args], output=2 * 1024 * 1024)
        assert result.stdout == " ".join(args).encode() + b"\n"

    async def test_too_many_arguments_are_refused(self, sandbox: ringfence.Sandbox) -> None:
        """10 MiB of arguments are InvalidSpecError, and the sandbox goes on."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec(["echo", *["x" * 65536] * 160])
        assert (await sandbox.exec(["true"])).ok

    async def test_a_timeout_is_a_result(self, sandbox: ringfence.Sandbox) -> None:
        """The command is gone, the reason is TIMEOUT, a shell would show 124."""
        result = await sandbox.exec(["sleep", "300"], timeout=0.2)
        assert (result.reason, result.shell_code) == (Reason.TIMEOUT, 124)
        assert await running(sandbox) == 0

    async def test_a_timeout_holds_against_ignored_signals(
        self, sandbox: ringfence.Sandbox
    ) -> None:
        """A command that ignores SIGTERM is killed after the grace."""
        line = "trap '' TERM; sleep 300"
        result = await sandbox.exec(shell=line, timeout=0.2, grace=0.2)
        assert result.reason is Reason.TIMEOUT

    async def test_a_timeout_keeps_the_output_so_far(self, sandbox: ringfence.Sandbox) -> None:
        """What was written before is in the result."""
        result = await sandbox.exec(shell="echo before; sleep 300", timeout=4)
        assert (result.reason, result.stdout) == (Reason.TIMEOUT, b"before\n")

    @pytest.mark.parametrize("code", [124, 125, 126, 127, 137, 139, 255])
    async def test_exit_codes_mean_nothing_else(
        self, sandbox: ringfence.Sandbox, code: int
    ) -> None:
        """A program's own 124 is no timeout, its 137 no kill."""
        result = await sandbox.exec(["sh", "-c", f"exit {code}"])
        assert (result.exit_code, result.reason) == (code, Reason.EXITED)

    async def test_a_signal_is_told(self, sandbox: ringfence.Sandbox) -> None:
        """A command that kills itself is SIGNALED with the number and no exit code."""
        result = await sandbox.exec(shell="kill -9 $$")
        assert (result.reason, result.signal, result.exit_code) == (Reason.SIGNALED, 9, None)
        assert result.shell_code == 137

    @pytest.mark.parametrize("timeout", [0, -1, "soon", float("nan"), True, 10**400])
    async def test_what_is_no_timeout_is_refused(
        self, sandbox: ringfence.Sandbox, timeout: float | str
    ) -> None:
        """It is InvalidSpecError."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec(["true"], timeout=timeout)

    @pytest.mark.parametrize("grace", [-1, 4000, float("nan"), True, "soon"])
    async def test_what_is_no_grace_is_refused(
        self, sandbox: ringfence.Sandbox, grace: float
    ) -> None:
        """It is InvalidSpecError."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec(["true"], grace=grace)

    async def test_cancellation_kills_the_command(self, sandbox: ringfence.Sandbox) -> None:
        """When the cancellation is raised, nothing of the command runs."""
        task = asyncio.create_task(sandbox.exec(["sleep", "300"]))
        await until(lambda: some_run(sandbox))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await running(sandbox) == 0

    async def test_cancellation_at_any_moment(self, sandbox: ringfence.Sandbox) -> None:
        """Before the start, at it, after it: nothing runs, and the sandbox is as well as before."""
        for turns in range(40):
            task = asyncio.create_task(sandbox.exec(["sleep", "300"]))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await running(sandbox) == 0
        assert (await sandbox.exec(["true"])).ok

    async def test_commands_run_side_by_side(self, sandbox: ringfence.Sandbox) -> None:
        """50 at once each get their own output."""
        results = await asyncio.gather(*(sandbox.exec(["echo", str(i)]) for i in range(50)))
        assert [result.stdout for result in results] == [b"%d\n" % i for i in range(50)]

    async def test_a_result_is_a_plain_value(self, sandbox: ringfence.Sandbox) -> None:
        """It pickles, and tells the duration in seconds."""
        result = await sandbox.exec(["sleep", "0.05"])
        assert pickle.loads(pickle.dumps(result)) == result
        assert result.duration >= 0.04

    async def test_children_do_not_hold_up_the_result(self, sandbox: ringfence.Sandbox) -> None:
        """A child that keeps stdout open is left running, and the result says so."""
        task = asyncio.create_task(sandbox.exec(shell="sleep 300 & echo done"))
        result = await asyncio.wait_for(task, 20)
        assert (result.stdout, result.exit_code) == (b"done\n", 0)
        await sandbox.kill_all()
