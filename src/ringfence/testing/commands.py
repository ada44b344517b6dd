"""Checks of `exec`."""

import asyncio
import io
import os
import pickle
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import ringfence
from ringfence import Reason
from ringfence.backends.base import Features
from ringfence.testing.base import Checks, running, until

MIB = 1024 * 1024


class CommandChecks(Checks):
    """One command, from its arguments to its result."""

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

    async def test_stdout_and_stderr_are_separate(self, sandbox: ringfence.Sandbox) -> None:
        """Each stream arrives in its own field, byte for byte."""
        result = await sandbox.exec(shell="echo out; echo err >&2")
        assert (result.stdout, result.stderr) == (b"out\n", b"err\n")

    async def test_stderr_can_be_merged_into_stdout(self, sandbox: ringfence.Sandbox) -> None:
        """merge_stderr keeps the order of both streams in stdout."""
        result = await sandbox.exec(shell="echo a; echo b >&2; echo c", merge_stderr=True)
        assert (result.stdout, result.stderr) == (b"a\nb\nc\n", b"")

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

    async def test_stdin_is_empty_unless_given(self, sandbox: ringfence.Sandbox) -> None:
        """A command that reads its input sees the end at once."""
        assert (await sandbox.exec(["cat"])).stdout == b""

    async def test_stdin_from_bytes_and_text(self, sandbox: ringfence.Sandbox) -> None:
        """Bytes arrive as they are, text as UTF-8."""
        assert (await sandbox.exec(["cat"], stdin=b"\x00\xff\n")).stdout == b"\x00\xff\n"
        assert (await sandbox.exec(["cat"], stdin="ü")).stdout == "ü".encode()

    async def test_stdin_from_a_file(self, sandbox: ringfence.Sandbox, tmp_path: Path) -> None:
        """A path of the host and an open binary file both give their content."""
        file = tmp_path / "input"
        file.write_bytes(b"content")
        assert (await sandbox.exec(["cat"], stdin=file)).stdout == b"content"
        assert (await sandbox.exec(["cat"], stdin=io.BytesIO(b"other"))).stdout == b"other"

    async def test_stdin_from_a_missing_file(self, sandbox: ringfence.Sandbox) -> None:
        """A path that cannot be read is InvalidSpecError and the command is gone."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec(["cat"], stdin=Path("/no/such/file"))
        assert await running(sandbox) == 0

    async def test_stdin_from_a_stream(self, sandbox: ringfence.Sandbox) -> None:
        """An async iterable is written as it comes."""

        async def pieces() -> AsyncIterator[bytes]:
            for piece in (b"one ", b"two ", b"three"):
                yield piece
                await asyncio.sleep(0)

        assert (await sandbox.exec(["cat"], stdin=pieces())).stdout == b"one two three"

    async def test_a_stdin_stream_of_texts_is_refused(self, sandbox: ringfence.Sandbox) -> None:
        """Pieces that are no bytes are InvalidSpecError, of exec and of spawn."""

        async def texts() -> AsyncIterator[str]:
            yield "text"

        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec(["cat"], stdin=texts())  # type: ignore[arg-type]
        async with sandbox.spawn(["cat"], stdin=texts()) as process:  # type: ignore[arg-type]
            with pytest.raises(ringfence.InvalidSpecError):
                await process.wait()

    async def test_an_error_of_the_stdin_stream_is_raised(self, sandbox: ringfence.Sandbox) -> None:
        """What the iterable raises is raised, and the command is gone."""

        async def broken() -> AsyncIterator[bytes]:
            yield b"x"
            raise LookupError("broken")

        with pytest.raises(LookupError, match="broken"):
            await sandbox.exec(["cat"], stdin=broken())
        assert await running(sandbox) == 0

    async def test_megabytes_of_stdin_come_back(self, sandbox: ringfence.Sandbox) -> None:
        """3 MiB go in and out of cat unchanged, beyond every window."""
        data = os.urandom(3 * MIB)
        assert (await sandbox.exec(["cat"], stdin=data, output=4 * MIB)).stdout == data

    async def test_a_command_may_end_without_reading_its_stdin(
        self, sandbox: ringfence.Sandbox
    ) -> None:
        """Input that nobody reads does not hold up the result."""
        result = await sandbox.exec(["true"], stdin=b"x" * MIB)
        assert result.ok

    async def test_a_mebibyte_of_arguments_arrives(self, sandbox: ringfence.Sandbox) -> None:
        """16 arguments of 64 KiB are passed whole."""
        args = [chr(97 + i) * 65536 for i in range(16)]
        result = await sandbox.exec(["echo", *args], output=2 * MIB)
        assert result.stdout == " ".join(args).encode() + b"\n"

    async def test_too_many_arguments_are_refused(self, sandbox: ringfence.Sandbox) -> None:
        """10 MiB of arguments are InvalidSpecError, and the sandbox goes on."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec(["echo", *["x" * 65536] * 160])
        assert (await sandbox.exec(["true"])).ok

    async def test_variables_can_be_set(self, sandbox: ringfence.Sandbox) -> None:
        """A value with "=", newline and quotes arrives unchanged."""
        value = "a=b\n'c' \"d\" $e"
        result = await sandbox.exec(["sh", "-c", 'echo "$V"'], env={"V": value})
        assert result.stdout == value.encode() + b"\n"

    async def test_variables_and_the_working_directory_may_be_any_bytes(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """What is not UTF-8 arrives unchanged, for one command and for all later ones."""
        odd, name = os.fsdecode(b"\xff\xe9"), f"{place}/\udcff"
        await sandbox.files.mkdir(name)
        asked = ["sh", "-c", 'echo "$V"; pwd']
        expected = b"\xff\xe9\n" + os.fsencode(name) + b"\n"
        assert (await sandbox.exec(asked, env={"V": odd}, cwd=name)).stdout == expected
        sandbox.env["V"] = odd
        await sandbox.chdir(name)
        assert (await sandbox.exec(asked)).stdout == expected

    async def test_variables_can_be_unset_for_one_command(self, sandbox: ringfence.Sandbox) -> None:
        """None as a value takes a variable away, for that command only."""
        sandbox.env["GONE"] = "1"
        result = await sandbox.exec(["env"], env={"GONE": None})
        assert b"GONE" not in result.stdout
        assert b"GONE=1" in (await sandbox.exec(["env"])).stdout

    async def test_the_environment_is_a_mapping(self, sandbox: ringfence.Sandbox) -> None:
        """sandbox.env is set, listed and deleted like a dict, for all later commands."""
        sandbox.env["COLOUR"] = "blue"
        assert "COLOUR" in sandbox.env
        assert (await sandbox.exec(shell="echo $COLOUR")).stdout == b"blue\n"
        del sandbox.env["COLOUR"]
        assert b"COLOUR" not in (await sandbox.exec(["env"])).stdout

    @pytest.mark.parametrize("name", ["", "1A", "A-B", "A=B", "A B", "ä"])
    async def test_names_that_are_none_are_refused(
        self, sandbox: ringfence.Sandbox, name: str
    ) -> None:
        """A variable's name is letters, digits and _ only, everywhere it can be given."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec(["true"], env={name: "x"})
        with pytest.raises(ringfence.InvalidSpecError):
            sandbox.env[name] = "x"

    async def test_nothing_of_the_hosts_environment_is_inherited(
        self, sandbox: ringfence.Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only PATH, HOME, LANG, TERM, the image's and the caller's variables are there."""
        monkeypatch.setenv("RINGFENCE_CHECK_SECRET", "secret")
        output = (await sandbox.exec(["env"])).stdout
        assert b"RINGFENCE_CHECK_SECRET" not in output
        for name in (b"PATH=", b"HOME=", b"LANG=", b"TERM="):
            assert name in output

    async def test_the_working_directory_is_given(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """cwd= holds for one command."""
        assert (await sandbox.exec(["pwd"], cwd=place)).stdout == place.encode() + b"\n"
        assert (await sandbox.exec(["pwd"])).stdout == sandbox.cwd.encode() + b"\n"

    async def test_chdir_holds_for_later_commands(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """The sandbox's working directory can be changed."""
        await sandbox.chdir(place)
        assert sandbox.cwd == place
        assert (await sandbox.exec(["pwd"])).stdout == place.encode() + b"\n"

    async def test_chdir_to_what_is_no_directory(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """A missing path, a file and a relative path are refused; the directory stays."""
        before = sandbox.cwd
        await sandbox.files.write(f"{place}/file", b"")
        with pytest.raises(ringfence.PathNotFoundError):
            await sandbox.chdir(f"{place}/missing")
        with pytest.raises(ringfence.PathNotADirectoryError):
            await sandbox.chdir(f"{place}/file")
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.chdir("relative")
        assert sandbox.cwd == before

    async def test_a_missing_working_directory(self, sandbox: ringfence.Sandbox) -> None:
        """It is PathNotFoundError with the path, and nothing is started."""
        with pytest.raises(ringfence.PathNotFoundError) as caught:
            await sandbox.exec(["true"], cwd="/no/such/directory")
        assert caught.value.path == "/no/such/directory"

    async def test_a_file_as_working_directory(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """It is PathNotADirectoryError."""
        await sandbox.files.write(f"{place}/file", b"")
        with pytest.raises(ringfence.PathNotADirectoryError):
            await sandbox.exec(["true"], cwd=f"{place}/file")

    @pytest.mark.parametrize("cwd", ["relative", "/tmp/../etc", "/proc/self/fd/7", "/dev", "//x"])
    async def test_dangerous_working_directories_are_refused(
        self, sandbox: ringfence.Sandbox, cwd: str
    ) -> None:
        """Not absolute, not normalised, or the kernel's: InvalidSpecError."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec(["true"], cwd=cwd)

    async def test_commands_are_not_root(self, sandbox: ringfence.Sandbox) -> None:
        """The default user has another uid than 0."""
        assert int((await sandbox.exec(["id", "-u"])).stdout) != 0

    async def test_the_user_can_be_a_number(
        self, sandbox: ringfence.Sandbox, features: Features
    ) -> None:
        """user=uid and "uid:gid" run as those; without users, UnsupportedError."""
        if not features.users:
            with pytest.raises(ringfence.UnsupportedError):
                await sandbox.exec(["true"], user=12345)
            return
        assert (await sandbox.exec(["id", "-u"], user=12345)).stdout == b"12345\n"
        assert (await sandbox.exec(["id", "-g"], user="12345:54321")).stdout == b"54321\n"

    @pytest.mark.parametrize("user", ["root", 0, "0:1000"])
    async def test_nobody_becomes_root_later(
        self, sandbox: ringfence.Sandbox, features: Features, user: str | int
    ) -> None:
        """What the profile does not give at the opening it does not give a command or a file
        operation: PolicyDeniedError; without users, UnsupportedError."""
        expected = ringfence.PolicyDeniedError if features.users else ringfence.UnsupportedError
        with pytest.raises(expected):
            await sandbox.exec(["id"], user=user)
        with pytest.raises(expected):
            await sandbox.files.stat("/", user=user)

    async def test_an_unknown_user_is_not_found(
        self, sandbox: ringfence.Sandbox, features: Features
    ) -> None:
        """A name that the sandbox does not know is NotFoundError."""
        expected = ringfence.NotFoundError if features.users else ringfence.UnsupportedError
        with pytest.raises(expected):
            await sandbox.exec(["true"], user="nobody-of-this-name")

    @pytest.mark.parametrize("user", ["", "a b", "70000", "-1", "x:y:z", "../x"])
    async def test_what_is_no_user_is_refused(self, sandbox: ringfence.Sandbox, user: str) -> None:
        """It is InvalidSpecError."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec(["true"], user=user)

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

    async def test_output_above_the_cap_is_counted(self, sandbox: ringfence.Sandbox) -> None:
        """The first bytes are kept, the rest is counted, and the command ends by itself."""
        data = os.urandom(300_000)
        result = await sandbox.exec(["cat"], stdin=data, output=1000)
        assert (result.stdout, result.stdout_total) == (data[:1000], 300_000)
        assert result.ok
        assert result.stdout_truncated
        assert not result.stderr_truncated

    async def test_output_of_exactly_the_cap_is_whole(self, sandbox: ringfence.Sandbox) -> None:
        """It is not flagged as truncated."""
        result = await sandbox.exec(["cat"], stdin=b"x" * 1000, output=1000)
        assert (len(result.stdout), result.stdout_truncated) == (1000, False)

    async def test_output_can_be_dropped(self, sandbox: ringfence.Sandbox) -> None:
        """output=0 keeps nothing and counts everything."""
        result = await sandbox.exec(["echo", "hello"], output=0)
        assert (result.stdout, result.stdout_total) == (b"", 6)

    async def test_output_can_be_a_limit(self, sandbox: ringfence.Sandbox) -> None:
        """on_output_limit="kill" ends the command with OUTPUT_LIMIT."""
        result = await sandbox.exec(
            ["cat"], stdin=b"x" * 300_000, output=1000, on_output_limit="kill"
        )
        assert (result.reason, len(result.stdout)) == (Reason.OUTPUT_LIMIT, 1000)

    async def test_a_result_holds_at_most_64_mebibytes(self, sandbox: ringfence.Sandbox) -> None:
        """More is InvalidSpecError that names the alternatives."""
        with pytest.raises(ringfence.InvalidSpecError, match="spawn"):
            await sandbox.exec(["true"], output=65 * MIB)

    async def test_callbacks_get_all_output(self, sandbox: ringfence.Sandbox) -> None:
        """on_stdout sees everything as it comes, while the result keeps the cap."""
        data = os.urandom(2 * MIB)
        seen = bytearray()
        result = await sandbox.exec(["cat"], stdin=data, output=10, on_stdout=seen.extend)
        assert bytes(seen) == data
        assert (result.stdout, result.stdout_total) == (data[:10], len(data))

    async def test_callbacks_may_be_async(self, sandbox: ringfence.Sandbox) -> None:
        """An async callback is awaited, for either stream."""
        seen: list[bytes] = []

        async def sink(chunk: bytes) -> None:
            await asyncio.sleep(0)
            seen.append(chunk)

        await sandbox.exec(shell="echo x >&2", on_stderr=sink)
        assert b"".join(seen) == b"x\n"

    async def test_an_error_of_a_callback_is_raised(self, sandbox: ringfence.Sandbox) -> None:
        """It is raised, and the command is gone."""

        def sink(chunk: bytes) -> None:
            raise LookupError(chunk)

        with pytest.raises(LookupError):
            await sandbox.exec(shell="echo x; sleep 300", on_stdout=sink)
        assert await running(sandbox) == 0

    async def test_cancellation_kills_the_command(self, sandbox: ringfence.Sandbox) -> None:
        """When the cancellation is raised, nothing of the command runs."""
        task = asyncio.create_task(sandbox.exec(["sleep", "300"]))
        await until(lambda: _some_run(sandbox))
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


async def _some_run(sandbox: ringfence.Sandbox) -> bool:
    return await running(sandbox) > 0
