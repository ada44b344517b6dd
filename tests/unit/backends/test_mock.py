"""The mock's own promises: what a test scripts behaves like a process, to its end."""

import asyncio
import contextlib

import ringfence
from ringfence.backends.mock import Call, MockBackend


async def test_output_over_the_cap_ends_a_command_when_that_was_asked_for() -> None:
    """On either stream, in one piece or in many, with whatever the command would do next."""
    mock = MockBackend()
    mock.on(["once"], stdout="x" * 5000)
    mock.on(["errors"], stderr="x" * 5000)

    async def on_and_on(call: Call) -> int:
        while True:
            await call.stdout(b"x" * 100)

    mock.on(["on"], on_and_on)
    async with ringfence.open(backend=mock) as sandbox:
        for name in ("once", "errors", "on"):
            result = await sandbox.exec([name], output=1000, on_output_limit="kill", timeout=20)
            assert result.reason == "output_limit", name
            assert len(result.stdout + result.stderr) == 1000


async def test_a_command_that_swallows_its_end_ends_all_the_same() -> None:
    """As with SIGKILL: nobody can refuse it."""
    mock = MockBackend()

    async def stubborn(_call: Call) -> int:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return 0

    mock.on(["stubborn"], stubborn)
    async with ringfence.open(backend=mock) as sandbox:
        result = await sandbox.exec(["stubborn"], timeout=0.05)
        assert result.reason == "timeout"
        assert result.exit_code is None


async def test_what_was_to_begin_late_does_not_begin_after_the_end() -> None:
    """A command, and a write, that are delayed while their sandbox is deleted."""
    mock, ran = MockBackend(), []
    mock.on(["late"], lambda _: ran.append("late"))
    mock.delay("exec", 0.5)
    mock.delay("write", 0.5)
    sandbox = await ringfence.open(backend=mock)
    asked = [
        asyncio.create_task(sandbox.exec(["late"])),
        asyncio.create_task(sandbox.files.write("/tmp/late", b"")),
    ]
    await asyncio.sleep(0)
    await sandbox.delete(grace=0)
    ended, failed = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(failed, ringfence.SandboxLostError)
    assert isinstance(ended, ringfence.ExecResult)
    await asyncio.sleep(0.6)
    assert ran == []
    assert [call.op for call in mock.calls] == []
