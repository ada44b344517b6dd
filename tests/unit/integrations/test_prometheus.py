"""What happens to the sandboxes of a process is counted, measured and served."""

import urllib.request
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

import ringfence
from ringfence.backends.base import Features
from ringfence.backends.mock import MockBackend
from ringfence.backends.mock.backend import MockInstance
from ringfence.events import EgressDecided, LimitHit
from ringfence.integrations.prometheus import PrometheusMonitor
from ringfence.spec import Usage


def value(monitor: PrometheusMonitor, name: str, **labels: str) -> float | None:
    found: float | None = monitor.registry.get_sample_value(name, labels)
    return found


async def test_creates_commands_and_ends_are_counted() -> None:
    """By backend, by how they ended, with the time they took."""
    monitor = PrometheusMonitor()
    mock = MockBackend()
    async with ringfence.open(backend=mock, events=monitor.bus) as sandbox:
        await sandbox.exec(["true"])
        await sandbox.exec(["false"])
        await sandbox.exec(["sleep", "60"], timeout=0.05)
    assert value(monitor, "ringfence_created_total", backend="mock") == 1
    assert value(monitor, "ringfence_create_seconds_count") == 1
    assert value(monitor, "ringfence_execs_total", reason="exited") == 2
    assert value(monitor, "ringfence_execs_total", reason="timeout") == 1
    assert value(monitor, "ringfence_exec_seconds_count") == 3
    assert value(monitor, "ringfence_ended_total", reason="deleted") == 1
    monitor.close()


async def test_creates_that_failed_are_counted_by_their_code() -> None:
    monitor = PrometheusMonitor()
    mock = MockBackend()
    mock.fail("create", error=ringfence.BackendUnavailableError("no daemon"))
    with pytest.raises(ringfence.BackendUnavailableError):
        await ringfence.open(backend=mock, events=monitor.bus)
    assert value(monitor, "ringfence_create_failed_total", code="backend_unavailable") == 1
    assert value(monitor, "ringfence_created_total", backend="mock") is None
    monitor.close()


async def test_limits_and_egress_are_counted_without_what_a_sandbox_chose() -> None:
    """No label holds a host name, an argument or a path."""
    monitor = PrometheusMonitor()
    monitor.bus.publish(LimitHit(sandbox_id="a", limit="memory", detail="chosen inside"))
    for allowed in (True, False, False):
        monitor.bus.publish(
            EgressDecided(sandbox_id="a", host="chosen.inside", port=443, allowed=allowed, rule="")
        )
    assert value(monitor, "ringfence_limit_hits_total", limit="memory") == 1
    assert value(monitor, "ringfence_egress_total", allowed="true") == 1
    assert value(monitor, "ringfence_egress_total", allowed="false") == 2
    labels = {
        text
        for metric in monitor.registry.collect()
        for one in metric.samples
        for text in one.labels.values()
    }
    assert not any("chosen" in text for text in labels)
    monitor.close()


class Measured(MockBackend):
    """A mock that says it can measure."""

    async def features(self) -> Features:
        return replace(await super().features(), usage=True)


async def test_usage_is_shown_while_a_sandbox_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last sample of each; it disappears with the watching and with the sandbox."""

    async def usage(self: object) -> Usage:
        return Usage(memory=4096, pids=3)

    monkeypatch.setattr(MockInstance, "usage", usage)
    monitor = PrometheusMonitor()
    async with ringfence.open(backend=Measured(), events=monitor.bus) as sandbox:
        with monitor.watching(sandbox):
            await monitor.sample()
            assert value(monitor, "ringfence_sandbox_memory", sandbox=sandbox.id) == 4096
            assert value(monitor, "ringfence_sandbox_pids", sandbox=sandbox.id) == 3
            assert value(monitor, "ringfence_sandbox_disk_read", sandbox=sandbox.id) is None
        assert value(monitor, "ringfence_sandbox_memory", sandbox=sandbox.id) is None
        with monitor.watching(sandbox):
            await monitor.sample()
            await sandbox.delete()
            await monitor.sample()
            assert value(monitor, "ringfence_sandbox_memory", sandbox=sandbox.id) is None
    monitor.close()


def page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text: str = answer.read().decode()
        return text


def test_the_endpoint_serves_a_registry_of_ones_own() -> None:
    """On a loopback port that the system chooses; `close` ends it and the counting."""
    monitor = PrometheusMonitor(registry=CollectorRegistry())
    port = monitor.serve()
    monitor.bus.publish(LimitHit(sandbox_id="a", limit="pids"))
    assert 'ringfence_limit_hits_total{limit="pids"} 1.0' in page(port)
    monitor.close()
    monitor.close()
    monitor.bus.publish(LimitHit(sandbox_id="a", limit="pids"))
    assert value(monitor, "ringfence_limit_hits_total", limit="pids") == 1
