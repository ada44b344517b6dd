"""How a sandbox ends when nobody asked it to."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import ringfence
from ringfence import Reason, State
from ringfence.backends import registry
from ringfence.backends.mock import MockBackend
from ringfence.errors import BackendUnavailableError, StateError
from ringfence.events import Event, EventBus
from ringfence.ledger import Ledger, reap

from .conftest import Durable

WAIT = 20


async def test_a_lost_guest_ends_everything_at_once(mock: MockBackend) -> None:
    """The command is SANDBOX_LOST, later ones SandboxLostError, the events say it, it is gone."""
    async with ringfence.open(backend=mock) as sandbox:
        mock.lose("exec")
        result = await sandbox.exec(["sleep", "300"])
        assert result.reason is Reason.SANDBOX_LOST
        with pytest.raises(ringfence.SandboxLostError) as caught:
            await sandbox.exec(["true"])
        assert caught.value.sandbox_id == sandbox.id
        while sandbox.history[-1].name != "Deleted":
            await asyncio.sleep(0.01)
        assert sandbox.info.reason == "lost"
    assert [e.name for e in sandbox.history if e.name in ("Lost", "Deleted")] == ["Lost", "Deleted"]
    assert await mock.found({}) == []


async def test_what_cannot_be_deleted_is_reported(mock: MockBackend) -> None:
    """delete raises nothing of the backend's; the report holds the error, and the rest is done."""
    sandbox = await ringfence.open(backend=mock)
    mock.fail("delete", error=BackendUnavailableError("the daemon is away"))
    report = await sandbox.delete()
    assert report.error is not None
    assert "the daemon is away" in report.error
    assert sandbox.history[-1].name == "Deleted"


async def test_what_cannot_be_deleted_is_left_to_whoever_reaps(
    mock: MockBackend, durable: Durable, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record stays and says why it is to end, until all of it is gone."""
    monkeypatch.setattr(registry, "load", lambda name, endpoint=None: durable)
    for what in ("instance", "rest"):
        sandbox = await ringfence.open(backend=durable, ledger=ledger)
        if what == "instance":
            mock.fail("delete", error=BackendUnavailableError("the daemon is away"))
        else:
            sandbox._context.life._rest.push_async_callback(_fail)
        assert (await sandbox.delete()).error is not None
        assert [entry.record.id for entry in ledger.live()] == [sandbox.id]
        [reaped] = await reap(ledger)
        assert (reaped.id, reaped.reason, reaped.error) == (sandbox.id, "deleted", None)
        assert ledger.get(sandbox.id).reason == "deleted"
        assert ledger.live() == []
    assert await mock.found({}) == []


async def _fail() -> None:
    raise StateError("a mount is busy")


async def test_a_step_for_which_no_thread_can_be_started_is_reported(
    durable: Durable, ledger: Ledger, no_thread: Callable[[], None]
) -> None:
    """As one that fails otherwise: the steps after it are taken, and whoever reaps goes on."""
    sandbox = await ringfence.open(backend=durable, ledger=ledger)
    sandbox._context.life._rest.push_async_callback(asyncio.to_thread, int)
    no_thread()
    report = await sandbox.delete()
    assert report.error is not None
    assert "ulimit -u" in report.error
    assert sandbox.history[-1].name == "Deleted"
    [entry] = ledger.live()
    assert (entry.reason, entry.expired()) == ("deleted", True)


async def test_what_was_written_down_without_a_thread_no_thread_writes_down_later(
    durable: Durable,
    ledger: Ledger,
    no_thread: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An executor keeps the work for which it could start none: by then another may have said
    more."""
    sandbox = await ringfence.open(backend=durable, ledger=ledger, lifetime=60)
    no_thread()
    await sandbox.extend(120)
    first = ledger.get(sandbox.id).record.ends
    assert first is not None
    ledger.extend(sandbox.id, first + 60)
    monkeypatch.undo()
    await asyncio.to_thread(int)
    assert ledger.get(sandbox.id).record.ends == first + 60
    await sandbox.delete()


async def test_the_record_is_closed_last(durable: Durable, ledger: Ledger) -> None:
    """A client that is killed while it deletes leaves nothing that no record tells of."""
    seen = []

    async def look() -> None:
        seen.append([entry.record.id for entry in ledger.live()])

    sandbox = await ringfence.open(backend=durable, ledger=ledger)
    sandbox._context.life._rest.push_async_callback(look)
    await sandbox.delete()
    assert seen == [[sandbox.id]]
    assert ledger.live() == []


async def test_running_commands_get_a_signal_first(mock: MockBackend) -> None:
    """With a grace they may end by themselves; what does not is killed."""
    async with ringfence.open(backend=mock) as sandbox:
        kind = await sandbox.spawn(["sleep", "300"])
        stubborn = await sandbox.spawn(shell="trap '' TERM; sleep 300")
        report = await sandbox.delete(grace=1)
    assert report.terminated == 2
    assert (await kind.wait()).signal == 15
    assert (await stubborn.wait()).reason in (Reason.SANDBOX_LOST, Reason.KILLED)


@pytest.mark.parametrize("grace", [-1, float("nan"), float("inf"), 3601, True, "1"])
async def test_a_grace_that_is_none_is_refused(mock: MockBackend, grace: float) -> None:
    """As that of a command is; the sandbox stays."""
    async with ringfence.open(backend=mock) as sandbox:
        for call in (sandbox.delete, sandbox.aclose):
            with pytest.raises(ringfence.InvalidSpecError, match=r"^grace: "):
                await call(grace=grace)
        assert (await sandbox.exec(["true"])).ok


async def test_many_may_delete_at_once(mock: MockBackend) -> None:
    """All get the one report."""
    sandbox = await ringfence.open(backend=mock)
    reports = await asyncio.gather(*(sandbox.delete() for _ in range(10)))
    assert len({id(report) for report in reports}) == 1


async def test_deleting_ends_what_waits(mock: MockBackend) -> None:
    """A reader, a watch and a slow file operation all end when the sandbox is deleted."""
    async with ringfence.open(backend=mock) as sandbox:
        mock.hang("stat")

        async def watch() -> None:
            async with sandbox.files.watch("/tmp") as events:
                async for _ in events:
                    pass

        process = await sandbox.spawn(["cat"])
        waiting = [
            asyncio.ensure_future(watch()),
            asyncio.ensure_future(process.stdout.read()),
            asyncio.ensure_future(sandbox.files.stat("/tmp")),
        ]
        await asyncio.sleep(0.05)
        await sandbox.delete(grace=0)
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), WAIT)
    assert isinstance(results[0], ringfence.SandboxLostError)
    assert results[1] == b""
    assert isinstance(results[2], ringfence.SandboxLostError)


async def test_a_bus_of_ones_own_sees_several_sandboxes(mock: MockBackend) -> None:
    """Events of all go to it, each with its id; a sandbox's history holds its own only."""
    events: list[Event] = []
    bus = EventBus()
    bus.subscribe(events.append)
    async with (
        ringfence.open(backend=mock, events=bus) as one,
        ringfence.open(backend=mock, events=bus) as two,
    ):
        await one.exec(["true"])
        await two.exec(["true"])
    assert {event.sandbox_id for event in events} == {one.id, two.id}
    assert {event.sandbox_id for event in one.history} == {one.id}


async def test_a_detached_one_survives_the_loss_of_its_session(mock: MockBackend) -> None:
    """Without its session it is lost for the holder, and can be opened again."""
    sandbox = await ringfence.open(backend=mock, detached=True, lifetime=60)
    sandbox._context.session.lose(ringfence.SandboxLostError("the wire was cut"))
    with pytest.raises(ringfence.SandboxLostError):
        await sandbox.exec(["true"])
    again = await ringfence.open(id=sandbox.id, backend=mock)
    assert (await again.exec(["true"])).ok
    await again.delete()
    await sandbox.aclose()
    assert await mock.found({}) == []


async def test_usage_of_run_is_there_even_where_nothing_is_measured(mock: MockBackend) -> None:
    """It says where it comes from."""
    run = await ringfence.run(["echo", "x"], backend=mock)
    assert (run.result.stdout, run.usage.source, run.patch) == (b"x\n", "none", None)


async def test_idleness_does_not_count_while_a_command_runs(mock: MockBackend) -> None:
    """A spawned command that says nothing keeps the sandbox alive."""
    async with (
        ringfence.open(backend=mock, idle_timeout=0.1) as sandbox,
        sandbox.spawn(["sleep", "300"]) as process,
    ):
        await asyncio.sleep(0.5)
        assert sandbox.info.state is State.RUNNING
        process.kill()
        while sandbox.info.state is State.RUNNING:
            await asyncio.sleep(0.02)
        assert sandbox.info.reason == "idle_timeout"


async def test_attaching_again_counts_once(mock: MockBackend) -> None:
    """A held command that was attached to twice and ended leaves the sandbox idle."""
    async with ringfence.open(backend=mock, idle_timeout=0.2) as sandbox:
        async with sandbox.spawn(["cat"], hold=True) as process:
            await process.write(b"x")
        for _ in range(2):
            again = await sandbox.attach(process.id)
            again.detach()
        assert sandbox._context.life.running == 1
        await sandbox.forget(process.id)
        while sandbox.info.state is State.RUNNING:
            await asyncio.sleep(0.02)
        assert sandbox.info.reason == "idle_timeout"


async def test_a_cancelled_delete_is_carried_to_its_end_first(
    mock: MockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await ringfence.open(backend=mock)
    kind = type(sandbox._context.life.instance)
    monkeypatch.setattr(kind, "delete", slowly(kind.delete))
    deleting = asyncio.create_task(sandbox.delete())
    await asyncio.sleep(0.01)
    deleting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deleting
    assert await mock.found({}) == []
    assert [event.name for event in sandbox.history][-1] == "Deleted"


@pytest.mark.parametrize("during", ["grace", "delete", "rest"])
def test_the_end_of_the_event_loop_does_not_interrupt_it(
    mock: MockBackend, durable: Durable, ledger: Ledger, during: str, monkeypatch: Any
) -> None:
    """asyncio.run cancels every task at its end, as it does after Ctrl-C in a gather, and those too
    that end a sandbox: they take all their steps, and what one left half done is on record."""
    ended: list[str] = []
    ids: list[str] = []

    async def one() -> None:
        sandbox = await ringfence.open(backend=durable, ledger=ledger)
        sandbox._context.bus.subscribe(lambda event: ended.append(event.name))
        ids.append(sandbox.id)
        if during == "grace":
            await sandbox.spawn(shell="trap '' TERM; sleep 300")
        elif during == "rest":
            sandbox._context.life.own(lambda: asyncio.sleep(0.1))
        else:
            kind = type(sandbox._context.life.instance)
            monkeypatch.setattr(kind, "delete", slowly(kind.delete))
        await sandbox.delete(grace=0.2)

    async def main() -> None:
        work = asyncio.create_task(one())
        while not ids:
            await asyncio.sleep(0.01)
        await asyncio.wait([work], timeout=0.05)

    asyncio.run(main())
    assert ended[-1] == "Deleted"
    assert asyncio.run(mock.found({})) == []
    live = [entry.record.id for entry in ledger.live()]
    assert live == (ids if during == "rest" else [])
    asyncio.run(reap(ledger))
    assert ledger.get(ids[0]).reason == "deleted"


@pytest.mark.parametrize("turns", range(5))
def test_an_event_loop_that_ends_as_it_begins_does_not_interrupt_it_either(
    durable: Durable, ledger: Ledger, turns: int
) -> None:
    """A task that is cancelled before its first step takes none."""

    async def one(opened: asyncio.Event) -> None:
        async with ringfence.open(backend=durable, ledger=ledger):
            opened.set()
            for _ in range(turns):
                await asyncio.sleep(0)

    async def main() -> None:
        opened = asyncio.Event()
        main.work = asyncio.create_task(one(opened))  # type: ignore[attr-defined]
        await opened.wait()

    asyncio.run(main())
    assert ledger.live() == []


def slowly(step: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    async def slow(instance: Any) -> None:
        await asyncio.sleep(0.1)
        await step(instance)

    return slow
