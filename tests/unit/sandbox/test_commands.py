"""What is refused of a command before anything is sent, how long a lost one took, and what becomes
of cancellations."""

import asyncio
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import pytest

import ringfence
from ringfence import Reason
from ringfence.backends.mock import MockBackend
from ringfence.guest.execs import Exec
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


@pytest.mark.parametrize("how", ["exec", "callback", "spawn", "attach"])
async def test_a_lost_command_took_the_time_since_its_start(
    mock: MockBackend, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its result and in the event of its end; one that was attached to, since then: more is not
    known."""
    now = 100.0
    monkeypatch.setattr(running, "monotonic", lambda: now)
    async with ringfence.open(backend=mock) as sandbox:
        if how == "spawn":
            work = asyncio.ensure_future((await sandbox.spawn(["sleep", "300"])).wait())
        elif how == "attach":
            held = await sandbox.spawn(["sleep", "300"], hold=True)
            now += 50
            work = asyncio.ensure_future((await sandbox.attach(held.id)).wait())
        else:
            sink = (lambda _: None) if how == "callback" else None
            work = asyncio.ensure_future(sandbox.exec(["sleep", "300"], on_stdout=sink))
        while sandbox.history[-1].name != "ExecStarted":
            await asyncio.sleep(0.01)
        for _ in range(2):  # until its holder has heard of the start, too
            await sandbox._context.session.ping()
        now += 7
        mock.lose("ping")
        with pytest.raises(ringfence.SandboxLostError):
            await sandbox._context.session.ping()
        result = await work
        assert result.reason is Reason.SANDBOX_LOST
        assert result.duration == 7
        [ended] = [event for event in sandbox.history if event.name == "ExecEnded"]
        assert ended.to_dict()["duration"] == result.duration


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """The kills that were asked for, which happen when they are called."""
    asked: list[Callable[[], None]] = []
    kill = Exec.kill
    monkeypatch.setattr(Exec, "kill", lambda exec_: asked.append(lambda: kill(exec_)))
    return asked


async def test_a_cancellation_goes_before_the_error_of_a_callback(
    mock: MockBackend, kills: list[Callable[[], None]]
) -> None:
    """It came while the command was killed for that error: who is cancelled does not go on."""

    def fail(_: bytes) -> None:
        raise ValueError("the callback's own")

    async with ringfence.open(backend=mock) as sandbox:
        script = "echo a; sleep 300"
        work = asyncio.ensure_future(sandbox.exec(["sh", "-c", script], on_stdout=fail))
        await cancel_while_killed(work, kills)


async def test_a_cancellation_while_a_held_command_is_forgotten_is_raised(
    mock: MockBackend, kills: list[Callable[[], None]]
) -> None:
    """When it is gone; it can be forgotten again."""
    async with ringfence.open(backend=mock) as sandbox:
        held = await sandbox.spawn(["sleep", "300"], hold=True)
        await cancel_while_killed(asyncio.ensure_future(sandbox.forget(held.id)), kills)
        await sandbox.forget(held.id)
        assert await sandbox.processes() == ()


async def cancel_while_killed(work: "asyncio.Future[Any]", kills: list[Callable[[], None]]) -> None:
    while not kills:
        await asyncio.sleep(0)
    work.cancel()
    await asyncio.sleep(0)
    for kill in kills:
        kill()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_a_second_cancellation_does_not_reach_what_a_callback_cleans_up(
    mock: MockBackend,
) -> None:
    """It is raised when none of it goes on."""
    begun, cleaning, go = asyncio.Event(), asyncio.Event(), asyncio.Event()
    cleaned = False

    async def write(_: bytes) -> None:
        nonlocal cleaned
        begun.set()
        try:
            await asyncio.sleep(300)
        finally:
            cleaning.set()
            await go.wait()
            cleaned = True

    async with ringfence.open(backend=mock) as sandbox:
        script = "echo a; sleep 300"
        work = asyncio.ensure_future(sandbox.exec(["sh", "-c", script], on_stdout=write))
        for event in (begun, cleaning):
            await event.wait()
            work.cancel()
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert cleaned
