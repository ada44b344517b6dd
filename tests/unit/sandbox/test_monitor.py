"""Looking at a sandbox at an interval."""

import asyncio
from dataclasses import replace

import pytest

import ringfence
from ringfence import Reason, Usage
from ringfence.backends.base import Features
from ringfence.backends.mock import MockBackend, MockInstance


class Measured(MockBackend):
    """A mock that measures what the test says."""

    async def features(self) -> Features:
        return replace(await super().features(), usage=True, limits=frozenset({"pids"}))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Usage]:
    """What the instance's usage is now: the last of the list."""
    usages = [Usage(cpu_seconds=0.0, pids=1, oom_kills=0)]

    async def usage(instance: MockInstance) -> Usage:
        return usages[-1]

    monkeypatch.setattr(MockInstance, "usage", usage)
    return usages


async def looks(monitor: object, more: int = 2) -> None:
    wanted = monitor.looks + more  # type: ignore[attr-defined]
    while monitor.looks < wanted:  # type: ignore[attr-defined]
        await asyncio.sleep(0.005)


async def test_health_that_changes_is_an_event(mock: MockBackend) -> None:
    """Once when it begins to answer, once when it ceases."""
    async with ringfence.open(backend=mock) as sandbox, sandbox.monitor(0.01) as monitor:
        await looks(monitor)
        assert monitor.health is not None
        assert monitor.health.ok
        await mock._instances[sandbox.id].delete()
        while monitor.health.ok:
            await asyncio.sleep(0.005)
    changes = [e.to_dict()["ok"] for e in sandbox.history if e.name == "HealthChanged"]
    assert changes == [True, False]


async def test_limits_that_were_hit_are_events(seen: list[Usage]) -> None:
    """Kills for want of memory by their number, the most processes once each time it is reached."""
    limits = {"pids": 10}
    async with (
        ringfence.open(backend=Measured(), limits=limits) as sandbox,
        sandbox.monitor(0.01) as monitor,
    ):
        for pids, kills in ((5, 2), (10, 2), (10, 2), (3, 2), (12, 2)):
            seen.append(Usage(pids=pids, oom_kills=kills))
            await looks(monitor)
        assert monitor.usage == seen[-1]
    hits = [e.to_dict() for e in sandbox.history if e.name == "LimitHit"]
    assert [hit["limit"] for hit in hits] == ["memory", "pids", "pids"]
    assert hits[0]["detail"].startswith("2 ")


async def test_a_usage_that_cannot_be_had_ends_no_monitor(
    seen: list[Usage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For want of a descriptor, say: it looks on, and has the next one."""
    plain = MockInstance.usage

    async def full(instance: MockInstance) -> Usage:
        raise OSError(24, "too many files are open")

    async with (
        ringfence.open(backend=Measured()) as sandbox,
        sandbox.monitor(0.01) as monitor,
    ):
        monkeypatch.setattr(MockInstance, "usage", full)
        await looks(monitor)
        monkeypatch.setattr(MockInstance, "usage", plain)
        seen.append(Usage(cpu_seconds=7.0))
        await looks(monitor)
        assert monitor.usage == seen[-1]


async def test_looking_is_no_use(mock: MockBackend) -> None:
    """A sandbox that is only looked at ends of idleness."""
    async with (
        ringfence.open(backend=mock, idle_timeout=0.2) as sandbox,
        sandbox.monitor(0.01) as monitor,
    ):
        while sandbox.info.state == "running":
            await asyncio.sleep(0.02)
        assert sandbox.info.reason == "idle_timeout"
        assert monitor.looks > 0


async def test_what_is_no_interval(mock: MockBackend) -> None:
    """Zero, negative, NaN, infinity and no numbers are InvalidSpecError, at once."""
    async with ringfence.open(backend=mock) as sandbox:
        for interval in (0, -1, float("nan"), float("inf"), True, "x", None):
            with pytest.raises(ringfence.InvalidSpecError, match=r"^interval: "):
                async with sandbox.monitor(interval):  # type: ignore[arg-type]
                    pass
            with pytest.raises(ringfence.InvalidSpecError, match=r"^interval: "):
                sandbox.stats(interval)  # type: ignore[arg-type]


async def test_processor_time_that_is_used_up(seen: list[Usage]) -> None:
    """The command is CPU_TIME, the sandbox ends for it."""
    async with ringfence.open(backend=Measured(), limits={"cpu_time": 1}) as sandbox:
        command = asyncio.ensure_future(sandbox.exec(["sleep", "300"]))
        await asyncio.sleep(0)
        seen.append(Usage(cpu_seconds=5.5))
        assert (await asyncio.wait_for(command, 30)).reason is Reason.CPU_TIME
        while sandbox.history[-1].name != "Deleted":
            await asyncio.sleep(0.01)
    assert sandbox.info.reason == "cpu_time"


async def test_health_tells_of_disk_and_idleness(mock: MockBackend) -> None:
    """A disk that takes nothing is not well; what asks does not count as use."""
    async with ringfence.open(backend=mock) as sandbox:
        await sandbox.exec(["true"])
        await asyncio.sleep(0.05)
        well = await sandbox.health()
        assert (well.ok, well.disk_writable) == (True, True)
        assert well.idle is not None
        assert well.idle >= 0.05
        assert await sandbox.files.list("/tmp") is not None
        mock.fail("write", errno=28)
        full = await sandbox.health()
        assert (full.ok, full.disk_writable) == (False, False)
        assert "space" in (full.message or "")
        async with sandbox.spawn(["sleep", "300"]):
            assert (await sandbox.health()).idle == 0
