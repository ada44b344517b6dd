"""Prometheus metrics of all sandboxes of a process (`pip install 'ringfence[prometheus]'`).

    monitor = PrometheusMonitor()
    monitor.serve(9464)
    async with ringfence.open(..., events=monitor.bus) as sandbox:
        with monitor.watching(sandbox):
            ...
            await monitor.sample()     # reads the usage of all that are watched, once

Use it from the event loop that its sandboxes run in; the endpoint has a thread of its own.
"""

import contextlib
import threading
from collections.abc import Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from ringfence.events import (
    Created,
    CreateFailed,
    Deleted,
    EgressDecided,
    Event,
    EventBus,
    ExecEnded,
    LimitHit,
    Lost,
)
from ringfence.sandbox.sandbox import Sandbox
from ringfence.spec import Usage

_GAUGES = {
    "cpu_seconds": "Processor time used, in seconds.",
    "memory": "Memory now, in bytes.",
    "memory_peak": "Highest memory so far, in bytes.",
    "memory_limit": "Memory limit, in bytes.",
    "pids": "Processes and threads now.",
    "disk_read": "Bytes read from block devices.",
    "disk_written": "Bytes written to block devices.",
    "disk_used": "Bytes used of a workspace that has a size.",
    "network_received": "Bytes that came in.",
    "network_sent": "Bytes that went out.",
}


class PrometheusMonitor:
    """Counts what a bus tells, and shows the usage that `sample` took.

    registry: to put into an endpoint of your own. Labels never hold what a sandbox chose.
    """

    def __init__(
        self, bus: EventBus | None = None, registry: CollectorRegistry | None = None
    ) -> None:
        self.bus = bus or EventBus()
        self.registry = registry or CollectorRegistry()
        self._watched: dict[str, Sandbox] = {}
        self._unsubscribe = self.bus.subscribe(self._take)
        self._server: tuple[WSGIServer, threading.Thread] | None = None
        self._counters()
        self._usage = {
            name: Gauge(f"ringfence_sandbox_{name}", text, ["sandbox"], registry=self.registry)
            for name, text in _GAUGES.items()
        }

    def _counters(self) -> None:
        own = self.registry
        self._created = Counter("ringfence_created", "Sandboxes made.", ["backend"], registry=own)
        self._failed = Counter(
            "ringfence_create_failed", "Creates that failed.", ["code"], registry=own
        )
        self._ended = Counter("ringfence_ended", "Sandboxes that ended.", ["reason"], registry=own)
        self._start = Histogram(
            "ringfence_create_seconds", "Time to the first command.", registry=own
        )
        self._execs = Counter("ringfence_execs", "Commands that ended.", ["reason"], registry=own)
        self._exec = Histogram("ringfence_exec_seconds", "Time inside of a command.", registry=own)
        self._limits = Counter(
            "ringfence_limit_hits", "Limits that took effect.", ["limit"], registry=own
        )
        self._egress = Counter("ringfence_egress", "Connections judged.", ["allowed"], registry=own)

    def _take(self, event: Event) -> None:
        match event:
            case Created():
                self._created.labels(event.backend).inc()
                self._start.observe(event.seconds)
            case CreateFailed():
                self._failed.labels(event.code).inc()
            case ExecEnded():
                self._execs.labels(event.reason).inc()
                self._exec.observe(event.duration)
            case LimitHit():
                self._limits.labels(event.limit).inc()
            case EgressDecided():
                self._egress.labels(str(event.allowed).lower()).inc()
            case Lost():
                self._ended.labels("lost").inc()
            case Deleted():
                self._ended.labels(event.reason).inc()
                self._forget(event.sandbox_id)

    @contextlib.contextmanager
    def watching(self, sandbox: Sandbox) -> Iterator[None]:
        """Show this sandbox's usage until the block ends."""
        self._watched[sandbox.id] = sandbox
        try:
            yield
        finally:
            self._forget(sandbox.id)

    def _forget(self, sandbox_id: str) -> None:
        if self._watched.pop(sandbox_id, None) is not None:
            for gauge in self._usage.values():
                with contextlib.suppress(KeyError):
                    gauge.remove(sandbox_id)

    async def sample(self) -> None:
        """Read the usage of every watched sandbox once; one that ended is left out."""
        from ringfence.errors import SandboxError

        for name, sandbox in list(self._watched.items()):
            try:
                usage = await sandbox.usage()
            except SandboxError:
                continue
            self._show(name, usage)

    def _show(self, name: str, usage: Usage) -> None:
        for field, gauge in self._usage.items():
            value = getattr(usage, field)
            if value is not None:
                gauge.labels(name).set(value)

    def serve(self, port: int = 0, address: str = "127.0.0.1") -> int:
        """Serve /metrics on a thread until `close`; the port, when 0 was asked for."""
        server, thread = start_http_server(port, address, self.registry)
        self._server = (server, thread)
        return int(server.server_port)

    def close(self) -> None:
        """Stop counting and serving. Idempotent."""
        self._unsubscribe()
        if self._server is not None:
            server, thread = self._server
            self._server = None
            server.shutdown()
            server.server_close()
            thread.join()
