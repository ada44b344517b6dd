"""Checks of what goes into commands and comes out."""

import asyncio
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import Reason
from ringfence.testing.base import Checks, running

MIB = 1024 * 1024


class StreamChecks(Checks):
    """Standard input, output and its caps, callbacks."""

    async def test_stdout_and_stderr_are_separate(self, sandbox: ringfence.Sandbox) -> None:
        """Each stream arrives in its own field, byte for byte."""
        result = await sandbox.exec(shell="echo out; echo err >&2")
        assert (result.stdout, result.stderr) == (b"out\n", b"err\n")

    async def test_stderr_can_be_merged_into_stdout(self, sandbox: ringfence.Sandbox) -> None:
        """merge_stderr keeps the order of both streams in stdout."""
        result = await sandbox.exec(shell="echo a; echo b >&2; echo c", merge_stderr=True)
        assert (result.stdout, result.stderr) == (b"a\nb\nc\n", b"")

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

    async def test_output_above_the_cap_is_counted(self, sandbox: ringfence.Sandbox) -> None:
        """The first bytes are kept, the rest is counted, and the command ends by itself."""
        data = os.urandom(300_000)
        result = await sandbox.exec(["cat"], stdin=data, output=1000)
        assert (result.stdout, result.stdout_total) == (data[:1000], 300_000)
        assert result.ok
        assert result.stdout_truncated
        assert not result.stderr_truncated

    async def test_output_that_somebody_reads_meets_no_limit(
        self, sandbox: ringfence.Sandbox
    ) -> None:
        """Nothing of a spawned command's output was dropped: no LimitHit says so."""
        async with sandbox.spawn(["echo", "hello"]) as process:
            assert [piece async for piece in process.stdout] == [b"hello\n"]
            await process.wait()
        names = [event.name for event in sandbox.history]
        assert names[len(names) - names[::-1].index("ExecStarted") :] == ["ExecEnded"]

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

    @pytest.mark.parametrize("field", ["on_stdout", "on_stderr"])
    async def test_what_is_no_callback_is_refused(
        self, sandbox: ringfence.Sandbox, place: str, field: str
    ) -> None:
        """It is InvalidSpecError that names it, before anything starts."""
        sinks: dict[str, Any] = {field: "no function"}
        with pytest.raises(ringfence.InvalidSpecError) as caught:
            await sandbox.exec(["touch", f"{place}/started"], **sinks)
        assert caught.value.context["fields"] == [field]
        assert not await sandbox.files.exists(f"{place}/started")

    async def test_an_error_of_a_callback_is_raised(self, sandbox: ringfence.Sandbox) -> None:
        """It is raised, and the command is gone."""

        def sink(chunk: bytes) -> None:
            raise LookupError(chunk)

        with pytest.raises(LookupError):
            await sandbox.exec(shell="echo x; sleep 300", on_stdout=sink)
        assert await running(sandbox) == 0
