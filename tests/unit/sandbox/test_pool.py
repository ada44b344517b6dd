"""Pools on the mock."""

import asyncio
import gc
import json
from dataclasses import replace
from pathlib import Path

import pytest

import ringfence
from ringfence import Repository, SandboxSpec, State
from ringfence.backends.base import Features
from ringfence.backends.mock import MockBackend
from ringfence.errors import BackendUnavailableError, InvalidSpecError, UnsupportedError
from ringfence.ledger import audit
from ringfence.sandbox.acquiring import asked_for
from ringfence.sandbox.auditing import without_login


async def test_members_are_warm_used_once_and_replaced(mock: MockBackend) -> None:
    """Ten uses of a pool of two are ten sandboxes, all gone at the end."""
    seen = set()
    async with ringfence.pool(SandboxSpec(), size=2, backend=mock) as pool:
        await pool.fill()
        for _ in range(10):
            async with pool.acquire() as sandbox:
                assert sandbox.id not in seen
                seen.add(sandbox.id)
                assert pool.statistics.in_use == 1
            assert await sandbox.state() is State.EXITED
            await pool.fill()
    assert pool.statistics.hits == 10
    assert pool.statistics.misses == 0
    assert await mock.found({}) == []


async def test_the_audit_log_of_a_pool_has_all_its_members(
    mock: MockBackend, tmp_path: Path
) -> None:
    log = tmp_path / "audit.log"
    async with ringfence.pool(SandboxSpec(), size=2, backend=mock, audit=log) as pool:
        await pool.fill()
        async with pool.acquire() as sandbox:
            await sandbox.exec(["true"])
    assert audit.verify(log).ok
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    told = {
        kind: {one["sandbox"] for one in entries if one["kind"] == kind}
        for kind in ("Created", "Deleted", "ExecEnded")
    }
    assert told["ExecEnded"] == {sandbox.id}
    assert sandbox.id in told["Created"]
    assert len(told["Created"]) >= 2
    assert told["Deleted"] == told["Created"]


@pytest.mark.parametrize("size", [0, -1, 1.5, "2", True])
def test_a_size_that_is_none_is_refused(mock: MockBackend, size: int) -> None:
    with pytest.raises(InvalidSpecError):
        ringfence.pool(SandboxSpec(), size=size, backend=mock)
    with pytest.raises(InvalidSpecError):
        ringfence.pool(SandboxSpec(), concurrency=size, backend=mock)


async def test_an_unhealthy_member_is_replaced(mock: MockBackend) -> None:
    """One that died while it waited is not handed out, though nobody has heard of it yet."""
    async with ringfence.pool(SandboxSpec(), size=2, backend=mock) as pool:
        await pool.fill()
        first = next(iter(pool._stock.ready))
        await mock._instances[first.id].delete()
        async with pool.acquire() as sandbox:
            assert sandbox.id != first.id
            assert (await sandbox.exec(["true"])).ok
        assert pool.statistics.unhealthy == 1


async def test_a_member_that_dies_is_replaced_before_anybody_asks(mock: MockBackend) -> None:
    """And it is not said to be ready; none is left behind of it."""
    async with ringfence.pool(SandboxSpec(), size=2, backend=mock) as pool:
        await pool.fill()
        dead = list(pool._stock.ready)
        for sandbox in dead:
            mock._instances[sandbox.id].guest.die()
        while pool.statistics.unhealthy < 2:
            await asyncio.sleep(0)
        assert pool.statistics.ready == 0
        await pool.fill()
        assert not {one.id for one in dead} & {one.id for one in pool._stock.ready}
        async with pool.acquire() as sandbox:
            assert (await sandbox.exec(["true"])).ok
        assert (pool.statistics.hits, pool.statistics.misses) == (1, 0)
    assert await mock.found({}) == []


async def test_a_pool_belongs_to_its_event_loop(mock: MockBackend) -> None:
    """In another one it hands out nothing, and keeps what it has; so does a sandbox."""

    async def elsewhere(pool: ringfence.Pool, sandbox: ringfence.Sandbox) -> None:
        with pytest.raises(ringfence.StateError, match="event loop"):
            async with pool.acquire():
                pass
        with pytest.raises(ringfence.StateError, match="event loop"):
            await pool.fill()
        for call in (sandbox.delete, sandbox.state, sandbox.kill_all, sandbox.aclose):
            with pytest.raises(ringfence.StateError, match="event loop"):
                await call()

    async with ringfence.pool(SandboxSpec(), size=1, backend=mock) as pool:
        await pool.fill()
        (waiting,) = pool._stock.ready
        await asyncio.to_thread(lambda: asyncio.run(elsewhere(pool, waiting)))
        async with pool.acquire() as sandbox:
            assert sandbox is waiting
            assert (await sandbox.exec(["true"])).ok
        assert pool.statistics.unhealthy == 0


async def test_more_callers_than_members(mock: MockBackend) -> None:
    """They are served by new ones at once."""
    async with ringfence.pool(SandboxSpec(), size=1, backend=mock) as pool:

        async def use() -> str:
            async with pool.acquire() as sandbox:
                assert (await sandbox.exec(["true"])).ok
                return sandbox.id

        ids = await asyncio.gather(*(use() for _ in range(8)))
    assert len(set(ids)) == 8
    assert await mock.found({}) == []


async def test_making_is_tried_again(mock: MockBackend) -> None:
    """Failures are counted and do not end the pool."""
    mock.fail("create", error=BackendUnavailableError("not now"), times=2)
    async with ringfence.pool(SandboxSpec(), size=1, backend=mock) as pool:
        while not pool._stock.ready:
            await asyncio.sleep(0.02)
        assert pool.statistics.failures == 2
        async with pool.acquire() as sandbox:
            assert (await sandbox.exec(["true"])).ok


async def test_fill_and_acquire_tell_why_there_is_none(mock: MockBackend) -> None:
    """What making one raises is raised to who waits for it."""
    mock.fail("create", error=BackendUnavailableError("never"), times=1000)
    async with ringfence.pool(SandboxSpec(), size=1, backend=mock) as pool:
        with pytest.raises(BackendUnavailableError, match="never"):
            await pool.fill()
        with pytest.raises(BackendUnavailableError, match="never"):
            async with pool.acquire():
                pass


async def test_a_closed_pool_hands_out_nothing(mock: MockBackend) -> None:
    """Before and after its block acquire is StateError; one in use stays usable."""
    pool = ringfence.pool(SandboxSpec(), size=1, backend=mock)
    with pytest.raises(ringfence.StateError):
        async with pool.acquire():
            pass
    async with pool:
        holder = pool.acquire()
        sandbox = await holder.__aenter__()
    assert (await sandbox.exec(["true"])).ok
    await holder.__aexit__(None, None, None)
    with pytest.raises(ringfence.StateError):
        await pool.fill()
    assert await mock.found({}) == []


class Held:
    """Members answer only when they are let. asked: one was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        answers = ringfence.Sandbox.answers

        async def later(sandbox: ringfence.Sandbox) -> bool:
            self.asked.set()
            await self.go.wait()
            return await answers(sandbox)

        monkeypatch.setattr(ringfence.Sandbox, "answers", later)


async def acquired(pool: ringfence.Pool) -> None:
    async with pool.acquire():
        pass


async def test_an_acquire_that_is_cancelled_gives_back_what_had_not_answered_yet(
    mock: MockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often: the member waits on, and is heard of once when it ends."""
    held = Held(monkeypatch)
    async with ringfence.pool(SandboxSpec(), size=1, backend=mock) as pool:
        await pool.fill()
        (waiting,) = pool._stock.ready
        callbacks = set()
        for _ in range(5):
            task = asyncio.create_task(acquired(pool))
            await held.asked.wait()
            held.asked.clear()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert list(pool._stock.ready) == [waiting]
            callbacks.add(len(waiting._context.session.lost._callbacks))
        assert len(callbacks) == 1
        mock._instances[waiting.id].guest.die()
        while pool.statistics.unhealthy < 1:
            await asyncio.sleep(0)
        await pool.fill()
        assert pool.statistics.unhealthy == 1
    assert await mock.found({}) == []


async def test_a_member_that_is_silent_holds_up_nobody(
    mock: MockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody froze it: the next one is handed out, and it is replaced."""
    monkeypatch.setattr("ringfence.sandbox.stock._SILENT_SECONDS", 1.0)
    held = Held(monkeypatch)
    async with ringfence.pool(SandboxSpec(), size=2, backend=mock) as pool:
        await pool.fill()
        silent, well = pool._stock.ready
        task = asyncio.create_task(pool.acquire().__aenter__())
        await held.asked.wait()
        while not pool.statistics.unhealthy:
            await asyncio.sleep(0.01)
        held.go.set()
        sandbox = await task
        assert sandbox is well
        await pool.fill()
        assert silent not in pool._stock.ready
        assert (await silent.state(), pool.statistics.unhealthy) == (State.EXITED, 1)
        await sandbox.delete()
    assert await mock.found({}) == []


async def test_an_acquire_that_is_cancelled_after_the_pool_was_closed_leaves_no_member(
    mock: MockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    async with ringfence.pool(SandboxSpec(), size=1, backend=mock) as pool:
        await pool.fill()
        task = asyncio.create_task(acquired(pool))
        await held.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.statistics.ready == 0
    assert await mock.found({}) == []


async def test_a_pool_that_is_closed_while_somebody_fills_it_keeps_no_member(
    mock: MockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The member that who waits makes after a failure in the background."""
    mock.fail("create", error=BackendUnavailableError("not now"))
    pool = ringfence.pool(SandboxSpec(), size=1, backend=mock)
    begun, go = asyncio.Event(), asyncio.Event()
    plain = pool._make.__class__.__call__

    async def slow(make: object) -> ringfence.Sandbox:
        if pool.statistics.failures:
            begun.set()
            await go.wait()
        return await plain(make)  # type: ignore[arg-type]

    monkeypatch.setattr(pool._make.__class__, "__call__", slow)
    async with pool:
        filling = asyncio.create_task(pool.fill())
        await begun.wait()
    go.set()
    with pytest.raises(ringfence.StateError, match="not open"):
        await filling
    assert await mock.found({}) == []


async def test_making_fails_slowly_and_quietly_whatever_it_raises(
    mock: MockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails, say: one attempt, then a pause; who waits gets the error itself."""
    loud: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loud.append(context))
    attempts = []

    async def full(*_: object, **__: object) -> None:
        attempts.append(OSError(5, "input/output error"))
        raise attempts[-1]

    with monkeypatch.context() as patched:
        patched.setattr(mock, "create", full)
        async with ringfence.pool(SandboxSpec(), size=1, backend=mock) as pool:
            while not attempts:
                await asyncio.sleep(0)
            for _ in range(1000):
                await asyncio.sleep(0)
            assert (len(attempts), pool.statistics.failures) == (1, 1)
            with pytest.raises(OSError, match="input/output"):
                await pool.fill()
            with pytest.raises(OSError, match="input/output"):
                await acquired(pool)
    gc.collect()
    assert loud == []


async def test_a_pool_is_opened_by_one(mock: MockBackend) -> None:
    """A second block would close it under the first; after the first it can be opened again."""
    pool = ringfence.pool(SandboxSpec(), size=1, backend=mock)
    async with pool:
        with pytest.raises(ringfence.StateError, match="open already"):
            await pool.__aenter__()
        await pool.fill()
    async with pool:
        await pool.fill()
    assert await mock.found({}) == []


async def test_leaving_while_members_are_made(mock: MockBackend) -> None:
    """Those under way are undone."""
    for turns in range(0, 40, 4):
        async with ringfence.pool(SandboxSpec(), size=3, backend=mock):
            for _ in range(turns):
                await asyncio.sleep(0)
        assert await mock.found({}) == []


@pytest.mark.parametrize("wrong", [{"size": 0}, {"concurrency": 0}])
def test_sizes_that_make_no_pool(mock: MockBackend, wrong: dict[str, int]) -> None:
    """They are InvalidSpecError, and so is a detached spec."""
    with pytest.raises(ringfence.InvalidSpecError):
        ringfence.pool(SandboxSpec(), backend=mock, **wrong)
    with pytest.raises(ringfence.InvalidSpecError):
        ringfence.pool(SandboxSpec(detached=True, lifetime=60), backend=mock)


async def test_a_repository_is_refused_before_a_member_is_taken(
    mock: MockBackend, tmp_path: Path
) -> None:
    """Where none can be bound in a sandbox that runs, the remedy is named, and who waited waits."""
    async with ringfence.pool(SandboxSpec(), size=1, backend=mock) as pool:
        await pool.fill()
        before = list(pool._stock.ready)
        with pytest.raises(UnsupportedError, match="repository"):
            async with pool.acquire(repository=tmp_path):
                pytest.fail("acquired")
        with pytest.raises(InvalidSpecError, match="mode"):
            async with pool.acquire(repository={"path": str(tmp_path), "mode": "odd"}):
                pytest.fail("acquired")
        assert (list(pool._stock.ready), pool.statistics.hits) == (before, 0)


ABLE = Features(mounts=True, late_binds=True, runtimes=frozenset({"runsc"}))


def test_what_can_be_asked_for_with_a_repository_later(tmp_path: Path) -> None:
    """A path or all of a Repository; not two, not below what is mounted, not on gVisor."""
    asked = asked_for(SandboxSpec(cwd="/tmp"), tmp_path, "process", ABLE)
    assert asked.repository == Repository(path=str(tmp_path))
    assert (asked.cwd, asked.backend) == ("/tmp", "process")
    with pytest.raises(UnsupportedError, match="into the pool's spec"):
        asked_for(SandboxSpec(), tmp_path, "process", Features(mounts=True))
    runsc = SandboxSpec.parse({"image": "x", "security": {"runtime": "runsc"}})
    with pytest.raises(UnsupportedError, match="into the pool's spec"):
        asked_for(runsc, tmp_path, "docker", ABLE)
    with pytest.raises(InvalidSpecError, match="has a repository already"):
        asked_for(SandboxSpec(repository=tmp_path), tmp_path, "process", ABLE)
    with pytest.raises(InvalidSpecError, match="has a snapshot already"):
        asked_for(SandboxSpec(snapshot=f"sha256:{'0' * 64}"), tmp_path, "process", ABLE)
    limits = frozenset({"read_rate"})
    rated = SandboxSpec.parse({"limits": {"read_rate": "1m"}})
    with pytest.raises(UnsupportedError, match=r"limits\.read_rate would not hold"):
        asked_for(rated, tmp_path, "process", replace(ABLE, limits=limits))
    for place in ("/workspace", "/workspace/data"):
        mount = {"source": str(tmp_path), "destination": place}
        with pytest.raises(InvalidSpecError, match=place):
            asked_for(SandboxSpec.parse({"mounts": [mount]}), tmp_path, "process", ABLE)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("https://me:secret@host/x.git", "https://host/x.git"),
        ("HTTP://token@host/x", "HTTP://host/x"),
        ("https://host/a@b", "https://host/a@b"),
        ("/a/path@here", "/a/path@here"),
    ],
)
def test_the_event_of_a_repository_has_no_login(path: str, shown: str) -> None:
    assert without_login(path) == shown
