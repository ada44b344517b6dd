"""What is refused of a command before anything is sent, and how long a lost one took."""

import asyncio
from pathlib import PurePosixPath
from typing import Any

import pytest

import ringfence
from ringfence import Reason
from ringfence.backends.mock import MockBackend
from ringfence.sandbox import control, running


@pytest.mark.parametrize("program", ["", b""])
async def test_a_program_without_a_name_is_refused(mock: MockBackend, program: Any) -> None:
    """InvalidSpecError that names args, of exec and of spawn."""
    async with ringfence.open(backend=mock) as sandbox:
        for begun in (sandbox.exec([program, "x"]), sandbox.spawn([program, "x"])):
            with pytest.raises(ringfence.InvalidSpecError, match=r"^args: .*empty: give") as caught:
                await begun
            assert caught.value.context["fields"] == ["args"]


async def test_a_path_object_is_a_path_for_chdir_too(mock: MockBackend) -> None:
    """The sandbox's cwd is its text afterwards."""
    async with ringfence.open(backend=mock) as sandbox:
        await control.chdir(sandbox._context, PurePosixPath("/tmp"))
        assert sandbox.cwd == "/tmp"


@pytest.mark.parametrize("path", [b"/tmp", 5, None])
async def test_chdir_refuses_what_is_neither_text_nor_path_object(
    mock: MockBackend, path: Any
) -> None:
    """InvalidSpecError of chdir that names cwd; the directory stays."""
    async with ringfence.open(backend=mock) as sandbox:
        before = sandbox.cwd
        with pytest.raises(ringfence.InvalidSpecError, match=r"^cwd: ") as caught:
            await sandbox.chdir(path)
        assert (caught.value.op, caught.value.context["fields"]) == ("chdir", ["cwd"])
        assert sandbox.cwd == before


@pytest.mark.parametrize("how", ["exec", "callback", "spawn"])
async def test_a_lost_command_took_the_time_since_its_start(
    mock: MockBackend, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its result and in the event of its end."""
    now = 100.0
    monkeypatch.setattr(running, "monotonic", lambda: now)
    async with ringfence.open(backend=mock) as sandbox:
        if how == "spawn":
            work = asyncio.ensure_future((await sandbox.spawn(["sleep", "300"])).wait())
        else:
            sink = (lambda _: None) if how == "callback" else None
            work = asyncio.ensure_future(sandbox.exec(["sleep", "300"], on_stdout=sink))
        while sandbox.history[-1].name != "ExecStarted":
            await asyncio.sleep(0.01)
        now += 7
        mock.lose("ping")
        with pytest.raises(ringfence.SandboxLostError):
            await sandbox._context.session.ping()
        result = await work
        assert result.reason is Reason.SANDBOX_LOST
        assert result.duration == 7
        [ended] = [event for event in sandbox.history if event.name == "ExecEnded"]
        assert ended.to_dict()["duration"] == result.duration
