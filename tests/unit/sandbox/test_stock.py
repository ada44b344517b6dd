"""The members of a pool that wait: their clocks, their counts and their end, on the mock."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import ringfence
from ringfence import SandboxSpec, StateError
from ringfence.backends.mock import MockBackend
from ringfence.errors import BackendUnavailableError, GuestError, InvalidSpecError, UnsupportedError
from ringfence.ledger import Ledger
from ringfence.sandbox import acquiring
from ringfence.sandbox.context import Context
from ringfence.sandbox.sandbox import context_of
from ringfence.sandbox.steps import Where
from tests.unit.sandbox.conftest import Durable


def adds_up(pool: ringfence.Pool, drained: int = 0) -> bool:
    """Whether each member that was made waits, was handed out, replaced, or deleted at the end."""
    told = pool.statistics
    return told.created == told.ready + told.hits + told.misses + told.unhealthy + drained


async def test_the_idle_timeout_begins_as_a_member_is_handed_out(mock: MockBackend) -> None:
    """A member that waits is not idle, however long; its holder has all of the timeout."""
    async with ringfence.pool(SandboxSpec(idle_timeout=0.2), size=1, backend=mock) as pool:
        await pool.fill()
        (waiting,) = pool._stock.ready
        life = context_of(waiting).life
        life._touched -= 10
        await asyncio.sleep(0.3)
        assert list(pool._stock.ready) == [waiting]
        async with pool.acquire() as sandbox:
            assert sandbox is waiting
            assert life.running == 0
            assert life.idle < 5
            while not life.ended:
                await asyncio.sleep(0.02)
            assert life.reason == "idle_timeout"
        assert pool.statistics.unhealthy == 0


async def test_the_lifetime_begins_as_a_member_is_handed_out(
    durable: Durable, ledger: Ledger
) -> None:
    """For its guest, its holder and the record; that it changed is an event."""
    spec = SandboxSpec(lifetime=100)
    async with ringfence.pool(spec, size=1, backend=durable, ledger=ledger) as pool:  # type: ignore[arg-type]
        await pool.fill()
        (waiting,) = pool._stock.ready
        first = waiting.info.ends
        assert first is not None
        await asyncio.sleep(0.05)
        begin = time.time()
        async with pool.acquire() as sandbox:
            ends = sandbox.info.ends
            assert ends is not None
            assert ends >= begin + 100 > first
            assert ledger.get(sandbox.id).record.ends == ends
            assert [one.name for one in sandbox.history] == ["Created", "Extended"]
        async with ringfence.pool(SandboxSpec(), size=1, backend=durable) as other:  # type: ignore[arg-type]
            await other.fill()
            async with other.acquire() as sandbox:
                assert [one.name for one in sandbox.history] == ["Created"]


async def test_a_member_whose_lifetime_cannot_be_written_waits_on(
    durable: Durable, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails is no fault of the member: who asked is told."""

    def full(*_: object) -> None:
        raise OSError(28, "no space left on device")

    spec = SandboxSpec(lifetime=100)
    async with ringfence.pool(spec, size=1, backend=durable, ledger=ledger) as pool:  # type: ignore[arg-type]
        await pool.fill()
        before = list(pool._stock.ready)
        with monkeypatch.context() as patched:
            patched.setattr(Ledger, "extend", full)
            with pytest.raises(OSError, match="no space"):
                async with pool.acquire():
                    pytest.fail("acquired")
        assert list(pool._stock.ready) == before
        assert adds_up(pool)
        async with pool.acquire() as sandbox:
            assert [sandbox] == before


async def test_a_pool_is_closed_in_its_event_loop_alone(mock: MockBackend) -> None:
    """Elsewhere that changes nothing."""

    async def elsewhere(pool: ringfence.Pool) -> None:
        with pytest.raises(StateError, match="event loop"):
            await pool.aclose()

    pool = ringfence.pool(SandboxSpec(), size=2, backend=mock)
    await pool.aclose()
    async with pool:
        await pool.fill()
        await asyncio.to_thread(lambda: asyncio.run(elsewhere(pool)))
        async with pool.acquire() as sandbox:
            assert (await sandbox.exec(["true"])).ok
        assert pool.statistics.hits == 1
    await pool.aclose()
    assert await mock.found({}) == []


@pytest.mark.parametrize("wrong", [None, "python:3.12-slim", 3])
def test_what_is_no_spec_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidSpecError, match="no SandboxSpec"):
        ringfence.pool(wrong)  # type: ignore[arg-type]


async def test_a_miss_that_fails_is_none(mock: MockBackend) -> None:
    """Only members that were made count as such."""
    async with ringfence.pool(SandboxSpec(), size=1, backend=mock) as pool:
        mock.fail("create", error=BackendUnavailableError("not now"), times=2)
        with pytest.raises(BackendUnavailableError):
            async with pool.acquire():
                pytest.fail("acquired")
        assert pool.statistics.misses == 0
        await pool.fill()
        assert adds_up(pool)


@pytest.mark.parametrize("turns", range(6))
async def test_what_waits_is_deleted_where_the_loop_ends_while_the_pool_is_closed(
    mock: MockBackend, turns: int
) -> None:
    """Every task is cancelled then, also those that delete, whether or not they have begun."""
    before, closing = asyncio.all_tasks(), asyncio.Event()

    async def hold() -> None:
        async with ringfence.pool(SandboxSpec(), size=4, concurrency=2, backend=mock) as pool:
            while pool.statistics.ready < 2:
                await asyncio.sleep(0)
            mock.hang("hello", times=2)
            while len(pool._stock._making) < 2:
                await asyncio.sleep(0)
            closing.set()

    holding = asyncio.create_task(hold())
    await closing.wait()
    for _ in range(turns):
        await asyncio.sleep(0)
    assert not holding.done()
    while left := asyncio.all_tasks() - before:
        for task in left:
            task.cancel()
        await asyncio.wait(left)
    assert await mock.found({}) == []


async def test_what_can_be_done_with_a_repository_is_asked_of_the_backend_that_was_named(
    tmp_path: Path,
) -> None:
    """Not of the one that the spec alone would get."""
    async with ringfence.pool(SandboxSpec(), size=1, backend="mock") as pool:
        with pytest.raises(UnsupportedError, match="repository"):
            async with pool.acquire(repository=tmp_path):
                pytest.fail("acquired")
        assert pool.statistics.hits + pool.statistics.misses == 0


async def test_a_forked_child_gets_a_state_error(mock: MockBackend) -> None:
    """No loop runs there: neither a pool nor a sandbox does anything, nor ends."""
    async with ringfence.pool(SandboxSpec(), size=1, backend=mock) as pool:
        await pool.fill()
        async with pool.acquire() as sandbox:
            child = os.fork()
            if child == 0:  # pragma: no cover - ends without a report
                told = 0
                for call in (pool.acquire().__aenter__, pool.fill, pool.aclose, sandbox.delete):
                    try:
                        await call()
                    except StateError as error:
                        told += "event loop" in error.message
                    except BaseException:
                        os._exit(99)
                os._exit(told)
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == 4
            assert (await sandbox.exec(["true"])).ok


async def turned(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def use(pool: ringfence.Pool) -> str:
    async with pool.acquire() as sandbox:
        return sandbox.id


async def test_what_ends_while_it_waits_is_replaced_though_nobody_asks(mock: MockBackend) -> None:
    """After a pause: what ends at once is not made at once again and again."""
    async with ringfence.pool(SandboxSpec(), size=1, backend=mock) as pool:
        await pool.fill()
        (waiting,) = pool._stock.ready
        mock._instances[waiting.id].guest.die()
        await turned(lambda: pool.statistics.unhealthy)
        for _ in range(200):
            await asyncio.sleep(0)
        assert pool.statistics.created == 1
        while not pool._stock.ready:
            await asyncio.sleep(0.02)
        assert adds_up(pool)
        await use(pool)
    assert (pool.statistics.ready, pool.statistics.unhealthy) == (0, 1)


async def test_no_more_are_made_at_a_time_than_was_said(mock: MockBackend) -> None:
    """In the background; whoever finds none waiting has one made besides."""
    mock.hang("hello", times=100)
    async with ringfence.pool(SandboxSpec(), size=5, concurrency=2, backend=mock):
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(await mock.found({})) == 2
    assert await mock.found({}) == []


async def test_attempts_come_ever_later_until_one_succeeds(
    mock: MockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a tenth of a second, twice as long each time, to five seconds."""
    plain, pauses = asyncio.sleep, []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await plain(0)

    mock.fail("create", error=BackendUnavailableError("not now"), times=8)
    async with ringfence.pool(SandboxSpec(), size=1, backend=mock) as pool:
        with monkeypatch.context() as patched:
            patched.setattr("ringfence.sandbox.stock.asyncio.sleep", sleep)
            while not pool._stock.ready:
                await plain(0)
        told = [one for one in pauses if one]
        assert told == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
        assert pool._stock._pause == 0
        assert pool.statistics.failures == 8


async def test_who_fills_a_pool_hears_of_the_first_that_fails(
    mock: MockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of its end: another that is made takes as long as it likes."""
    plain, made = mock.create, []

    async def create(*args: Any, **more: Any) -> Any:
        made.append(args)
        if len(made) > 1:
            raise BackendUnavailableError("not now")
        return await plain(*args, **more)

    monkeypatch.setattr(mock, "create", create)
    mock.hang("hello")
    async with ringfence.pool(SandboxSpec(), size=2, backend=mock) as pool:
        with pytest.raises(BackendUnavailableError, match="not now"):
            await pool.fill()
        assert len(await mock.found({})) == 1
        filling = asyncio.create_task(pool.fill())
        await asyncio.sleep(0)
    with pytest.raises(StateError, match="not open"):
        await filling
    assert await mock.found({}) == []


async def test_closing_is_not_interrupted(mock: MockBackend) -> None:
    """A cancellation is raised once nothing waits any more, none of which was unhealthy."""
    for turns in range(8):
        pool = ringfence.pool(SandboxSpec(), size=2, backend=mock)
        await pool.__aenter__()
        await pool.fill()
        closing = asyncio.create_task(pool.aclose())
        for _ in range(turns):
            await asyncio.sleep(0)
        if closing.cancel():
            with pytest.raises(asyncio.CancelledError):
                await closing
        if turns:
            assert await mock.found({}) == []
        await pool.aclose()
        assert await mock.found({}) == []
        assert (pool.statistics.ready, pool.statistics.unhealthy) == (0, 0)


async def test_a_pool_that_is_closed_while_a_member_is_asked_makes_none(
    mock: MockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringfence.sandbox.stock._SILENT_SECONDS", 0.05)
    pool = ringfence.pool(SandboxSpec(), size=1, backend=mock)
    async with pool:
        await pool.fill()
        mock.hang("ping", times=100)
        acquiring = asyncio.create_task(use(pool))
        await turned(lambda: not pool._stock.ready)
    with pytest.raises(StateError, match="not open"):
        await acquiring
    assert (pool.statistics.created, pool.statistics.unhealthy) == (1, 1)
    assert pool.statistics.wait_seconds > 0


async def test_a_member_that_ends_as_its_lifetime_begins_is_replaced(mock: MockBackend) -> None:
    async with ringfence.pool(SandboxSpec(lifetime=100), size=2, backend=mock) as pool:
        await pool.fill()
        first, second = pool._stock.ready
        mock.lose("lease")
        async with pool.acquire() as sandbox:
            assert sandbox is second
        assert await first.state() == "exited"
        assert (pool.statistics.hits, pool.statistics.unhealthy) == (1, 1)


@pytest.mark.parametrize("lifetime", [None, 100])
async def test_an_acquire_that_is_cancelled_at_any_turn_loses_no_member(
    durable: Durable, ledger: Ledger, lifetime: float | None
) -> None:
    """Of those that wait none is lost, and none lives that does not wait."""
    spec, finished = SandboxSpec(lifetime=lifetime), 0
    async with ringfence.pool(spec, size=2, backend=durable, ledger=ledger) as pool:  # type: ignore[arg-type]
        for turns in range(200):
            await pool.fill()
            task = asyncio.create_task(use(pool))
            for _ in range(turns):
                await asyncio.sleep(0)
            finished += task.done()
            task.cancel()
            await asyncio.wait([task])
            while pool._stock._making:
                await asyncio.sleep(0.001)
            assert adds_up(pool)
            assert pool.statistics.in_use == 0
            waiting = sorted(one.id for one in pool._stock.ready)
            assert sorted(one.id for one in await durable.mock.found({})) == waiting
            assert sorted(one.record.id for one in ledger.live()) == waiting
            if finished > 2:
                break
    assert finished > 2
    assert ledger.live() == []


async def test_the_oldest_that_wait_go_first_and_all_others_are_made(mock: MockBackend) -> None:
    async with ringfence.pool(SandboxSpec(), size=3, backend=mock) as pool:
        await pool.fill()
        waiting = [one.id for one in pool._stock.ready]
        got = await asyncio.gather(*(use(pool) for _ in range(10)))
        assert got[:3] == waiting
        assert len(set(got)) == 10
        assert (pool.statistics.hits, pool.statistics.misses) == (3, 7)


async def test_the_next_one_is_made_while_a_member_is_in_use(mock: MockBackend) -> None:
    async with ringfence.pool(SandboxSpec(), size=1, backend=mock) as pool:
        await pool.fill()
        async with pool.acquire() as sandbox:
            await turned(lambda: pool._stock.ready)
            assert sandbox not in pool._stock.ready
            assert (pool.statistics.in_use, pool.statistics.ready) == (1, 1)


async def test_a_pool_is_filled_while_its_last_member_is_asked(mock: MockBackend) -> None:
    async with ringfence.pool(SandboxSpec(), size=1, backend=mock) as pool:
        await pool.fill()
        mock.hang("ping")
        acquiring = asyncio.create_task(use(pool))
        await turned(lambda: not pool._stock.ready)
        await pool.fill()
        acquiring.cancel()
        await asyncio.wait([acquiring])
        assert adds_up(pool)
    assert await mock.found({}) == []


@pytest.mark.parametrize("kind", [StateError, GuestError])
async def test_a_member_whose_lifetime_cannot_begin_is_replaced(
    mock: MockBackend, monkeypatch: pytest.MonkeyPatch, kind: type[ringfence.SandboxError]
) -> None:
    """Somebody ended it in the record, or its guest refused."""
    async with ringfence.pool(SandboxSpec(lifetime=100), size=2, backend=mock) as pool:
        await pool.fill()
        first, second = pool._stock.ready
        plain = ringfence.Sandbox.extend

        async def extend(sandbox: ringfence.Sandbox, lifetime: float) -> float:
            if sandbox is first:
                raise kind("no")
            return await plain(sandbox, lifetime)

        monkeypatch.setattr(ringfence.Sandbox, "extend", extend)
        async with pool.acquire() as sandbox:
            assert sandbox is second
        assert (pool.statistics.hits, pool.statistics.unhealthy) == (1, 1)
    assert await mock.found({}) == []


def test_whose_the_members_are_is_what_was_said() -> None:
    """As for `open`."""
    bus, ceiling = ringfence.EventBus(), ringfence.Ceiling(lifetime=5)
    pool = ringfence.pool(SandboxSpec(), endpoint="unix:///x", ceiling=ceiling, events=bus)
    where = pool._make.where
    assert (where.endpoint, where.ceiling, where.bus) == ("unix:///x", ceiling, bus)


@pytest.fixture
def giving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the members of a pool bind any repository, which takes as long as `give` does."""

    def patch(pool: ringfence.Pool, give: Callable[..., Any]) -> None:
        async def asked(_: object) -> SandboxSpec:
            return SandboxSpec()

        monkeypatch.setattr(pool._make, "asked", asked)
        monkeypatch.setattr("ringfence.sandbox.pool.give", give)

    return patch


async def test_the_next_one_is_made_while_a_long_repository_is_bound(
    mock: MockBackend, giving: Callable[..., None]
) -> None:
    async with ringfence.pool(SandboxSpec(), size=1, backend=mock) as pool:

        async def give(*_: object) -> None:
            async with asyncio.timeout(30):
                while not pool._stock.ready:
                    await asyncio.sleep(0.01)

        giving(pool, give)
        await pool.fill()
        async with pool.acquire(repository="."):
            assert (pool.statistics.created, pool.statistics.ready) == (2, 1)


@pytest.mark.parametrize("fails", [False, True])
async def test_the_next_one_is_made_after_a_short_repository_was_bound(
    mock: MockBackend,
    giving: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    fails: bool,
) -> None:
    """Not before, which would hold it up; also where that fails, which deletes the member."""
    monkeypatch.setattr("ringfence.sandbox.pool._AHEAD_SECONDS", 3600.0)
    async with ringfence.pool(SandboxSpec(), size=1, backend=mock) as pool:

        async def give(*_: object) -> None:
            for _turn in range(50):
                await asyncio.sleep(0)
                assert not pool._stock._making
            if fails:
                raise GuestError("no")

        giving(pool, give)
        await pool.fill()
        (waiting,) = pool._stock.ready
        with pytest.raises(GuestError) if fails else nullcontext():
            async with pool.acquire(repository=".") as sandbox:
                assert sandbox is waiting
                async with asyncio.timeout(30):
                    await turned(lambda: pool._stock.ready)
        async with asyncio.timeout(30):
            await turned(lambda: pool._stock.ready)
        assert [one.id for one in pool._stock.ready] == [one.id for one in await mock.found({})]
        assert (pool.statistics.created, pool.statistics.in_use) == (2, 0)


async def test_a_closed_pool_asks_nothing_of_a_repository(
    mock: MockBackend, tmp_path: Path
) -> None:
    pool = ringfence.pool(SandboxSpec(), size=1, backend=mock)
    with pytest.raises(StateError, match="not open"):
        async with pool.acquire(repository=tmp_path / "missing"):
            pytest.fail("acquired")


async def test_a_rate_of_the_ceiling_leaves_no_room_for_a_repository_either() -> None:
    """Which may be on another disk than the rate was given for."""
    granted = SandboxSpec.parse({"limits": {"read_rate": "1M"}})
    has = cast(Context, SimpleNamespace(spec=granted))
    with pytest.raises(UnsupportedError, match=r"limits\.read_rate"):
        await acquiring._granted(has, SandboxSpec(), Where())
