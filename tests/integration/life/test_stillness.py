"""Who reads the files of a sandbox finds nothing running in it, and leaves it running."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import State
from ringfence.sandbox.workspace import frozen
from tests.conftest import require_bwrap, require_root


@pytest.fixture
async def sandbox(state_directory: Path) -> AsyncIterator[ringfence.Sandbox]:
    require_root()
    require_bwrap()
    async with ringfence.open(backend="process") as sandbox:
        yield sandbox


class Slow:
    """Freezing takes until it is let. begun: it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sandbox: ringfence.Sandbox) -> None:
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        instance: Any = sandbox._context.instance
        pause = instance.pause

        async def slow() -> None:
            self.begun.set()
            await self.go.wait()
            await pause()

        monkeypatch.setattr(instance, "pause", slow)


async def test_cancelled_while_it_freezes_it_thaws_again(
    sandbox: ringfence.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch, sandbox)

    async def read() -> None:
        async with frozen(sandbox._context):
            pass

    task = asyncio.create_task(read())
    await slow.begun.wait()
    task.cancel()
    slow.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sandbox.info.state is State.RUNNING
    assert (await sandbox.exec(["true"])).ok


async def test_it_stays_frozen_until_the_last_has_read(
    sandbox: ringfence.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch, sandbox)
    ends = [asyncio.Event() for _ in range(3)]
    inside = []

    async def read(end: asyncio.Event) -> None:
        async with frozen(sandbox._context):
            inside.append(await sandbox.state())
            await end.wait()
            inside.append(await sandbox.state())

    tasks = [asyncio.create_task(read(end)) for end in ends]
    await slow.begun.wait()
    slow.go.set()
    while len(inside) < 3:
        await asyncio.sleep(0)
    for end, task in zip(ends, tasks, strict=True):
        end.set()
        await task
    assert inside == [State.PAUSED] * 6
    assert await sandbox.state() is State.RUNNING
    assert (await sandbox.exec(["true"])).ok
