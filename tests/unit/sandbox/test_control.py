"""What is asked of a sandbox as a whole, by several at once and with cancellations."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

import ringfence
from ringfence import Sandbox, State
from ringfence.backends.mock import MockBackend
from ringfence.errors import StateError
from ringfence.sandbox import control
from ringfence.sandbox.stillness import Stillness
from ringfence.spec import Usage


class Freezer:
    """Freezes and thaws when it is let."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.go = asyncio.Event()
        self.begun = asyncio.Event()
        self.calls: list[str] = []
        context = sandbox._context
        context.features = replace(context.features, pause=True, usage=True)
        instance: Any = context.instance
        instance.pause, instance.resume = self.pause, self.resume

    async def pause(self) -> None:
        await self._call("pause")

    async def resume(self) -> None:
        await self._call("resume")

    async def _call(self, name: str) -> None:
        self.calls.append(name)
        self.begun.set()
        await self.go.wait()


@pytest.fixture
async def sandbox(mock: MockBackend) -> AsyncIterator[Sandbox]:
    async with ringfence.open(backend=mock) as sandbox:
        yield sandbox


def told(sandbox: Sandbox) -> list[str]:
    return [event.name for event in sandbox.history if event.name in ("Paused", "Resumed")]


async def test_of_several_who_pause_or_resume_one_does(sandbox: Sandbox) -> None:
    """It is told once; the others hear what they would have heard a moment later. The lease that
    its guest is given afterwards is the one that it had."""
    freezer = Freezer(sandbox)
    freezer.go.set()
    lease = sandbox._context.session.lease_seconds
    for change, state in ((sandbox.pause, State.PAUSED), (sandbox.resume, State.RUNNING)):
        ended = await asyncio.gather(change(), change(), change(), return_exceptions=True)
        assert [type(one) for one in ended] == [type(None), StateError, StateError]
        assert sandbox.info.state is state
    assert freezer.calls == ["pause", "resume"]
    assert told(sandbox) == ["Paused", "Resumed"]
    assert sandbox._context.session.lease_seconds == lease


async def test_a_change_whose_caller_is_cancelled_is_told_all_the_same(sandbox: Sandbox) -> None:
    """It is carried to its end; what waits for its turn meanwhile is not begun."""
    freezer = Freezer(sandbox)
    for change in (sandbox.pause, sandbox.resume):
        freezer.go.clear()
        freezer.begun.clear()
        first, second = asyncio.create_task(change()), asyncio.create_task(change())
        await freezer.begun.wait()
        second.cancel()
        await asyncio.wait([second])
        first.cancel()
        freezer.go.set()
        await asyncio.wait([first])
        assert first.cancelled()
        assert second.cancelled()
    assert freezer.calls == ["pause", "resume"]
    assert told(sandbox) == ["Paused", "Resumed"]
    assert sandbox.info.state is State.RUNNING


async def test_who_changes_it_while_the_opposite_is_done_waits_for_that(sandbox: Sandbox) -> None:
    freezer = Freezer(sandbox)
    freezer.go.set()
    for first, second, state in (
        (sandbox.pause, sandbox.resume, State.RUNNING),
        (sandbox.resume, sandbox.pause, State.PAUSED),
    ):
        if first == sandbox.resume:
            await sandbox.pause()
        freezer.go.clear()
        freezer.begun.clear()
        changes = [asyncio.create_task(first())]
        await freezer.begun.wait()
        changes.append(asyncio.create_task(second()))
        await asyncio.sleep(0)
        freezer.go.set()
        await asyncio.gather(*changes)
        assert sandbox.info.state is state
    await sandbox.resume()


@pytest.mark.parametrize("what", ["pause", "resume"])
async def test_one_that_is_deleted_meanwhile_stays_ended(sandbox: Sandbox, what: str) -> None:
    freezer = Freezer(sandbox)
    if what == "resume":
        freezer.go.set()
        await sandbox.pause()
        freezer.go.clear()
        freezer.begun.clear()
    before = told(sandbox)
    change = asyncio.create_task(getattr(sandbox, what)())
    await freezer.begun.wait()
    await sandbox.delete()
    freezer.go.set()
    with pytest.raises(StateError, match="deleted"):
        await change
    assert sandbox.info.state is State.EXITED
    assert told(sandbox) == before


@pytest.mark.parametrize("what", ["resume", "delete"])
async def test_who_reads_files_of_a_still_sandbox_minds_no_end_of_that(
    sandbox: Sandbox, what: str
) -> None:
    """Its user may resume or delete it meanwhile: what was read is not lost for that."""
    Freezer(sandbox).go.set()
    async with Stillness(sandbox._context).wanted():
        assert sandbox.info.state is State.PAUSED
        await getattr(sandbox, what)()
    assert told(sandbox)[0] == "Paused"
    assert sandbox.info.state is (State.RUNNING if what == "resume" else State.EXITED)


async def test_what_its_user_paused_meanwhile_stays_paused(sandbox: Sandbox) -> None:
    """Who froze it to read its files lets go of that one freeze only."""
    Freezer(sandbox).go.set()
    async with Stillness(sandbox._context).wanted():
        await sandbox.resume()
        await sandbox.pause()
    assert sandbox.info.state is State.PAUSED
    await sandbox.resume()


async def test_a_wait_for_a_sample_that_is_cancelled_ends_no_samples(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it waits for the time or for the sample itself; the end of the sandbox ends them."""
    Freezer(sandbox)
    go, asked = asyncio.Event(), asyncio.Event()

    async def measure(_: object) -> Usage:
        asked.set()
        await go.wait()
        return Usage(source="none")

    monkeypatch.setattr(control, "measure", measure)
    samples = sandbox.stats(0.01)
    for _ in range(2):
        asked.clear()
        waiting = asyncio.ensure_future(anext(samples))
        await asked.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
    go.set()
    assert (await anext(samples)).source == "none"
    waiting = asyncio.ensure_future(anext(samples))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert (await anext(samples)).source == "none"
    await sandbox.delete()
    with pytest.raises(StopAsyncIteration):
        await anext(samples)
