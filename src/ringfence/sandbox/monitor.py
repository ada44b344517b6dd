"""Looking at a sandbox at an interval, and telling what changed as events."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ringfence.errors import SandboxError
from ringfence.events import HealthChanged
from ringfence.sandbox import control
from ringfence.sandbox.context import Context
from ringfence.sandbox.control import Health
from ringfence.spec import Usage
from ringfence.spec.quantity import check_interval


class Monitor:
    """What was seen last. health: None before the first look. usage: None where it cannot be had.
    looks: how often it looked."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._full = False
        self.health: Health | None = None
        self.usage: Usage | None = None
        self.looks = 0

    async def look(self) -> None:
        """Look once, and publish what changed."""
        before, usage = self.health, self.usage
        self.health = await control.health(self._context)
        if before is None or before.ok is not self.health.ok:
            self._say_health(self.health)
        if self._context.features.usage and self.health.ok:
            with contextlib.suppress(SandboxError, OSError):  # no descriptor left, say
                self.usage = await control.measure(self._context)
                self._say_limits(usage, self.usage)
        self.looks += 1

    def _say_health(self, health: Health) -> None:
        self._context.bus.publish(
            HealthChanged(
                sandbox_id=self._context.id,
                ok=health.ok,
                latency=health.latency,
                message=health.message,
            )
        )

    def _say_limits(self, before: Usage | None, now: Usage) -> None:
        kills = (now.oom_kills or 0) - ((before.oom_kills or 0) if before is not None else 0)
        if kills > 0:
            detail = f"{kills} processes were killed for want of memory"
            self._context.life.hit("memory", detail, oom_kills=kills)
        most = self._context.spec.limits.pids
        full = most is not None and now.pids is not None and now.pids >= most
        if full and not self._full:
            counters = {"pids": now.pids or 0, "forks_refused": now.forks_refused or 0}
            self._context.life.hit("pids", f"{now.pids} of {most} processes", **counters)
        self._full = full


@asynccontextmanager
async def monitored(context: Context, interval: float) -> AsyncIterator[Monitor]:
    """See `Sandbox.monitor`."""
    check_interval(interval)
    monitor = Monitor(context)

    async def watch() -> None:
        await monitor.look()
        while not context.life.ended:
            await asyncio.sleep(interval)
            await monitor.look()

    task = asyncio.create_task(watch())
    try:
        yield monitor
    finally:
        task.cancel()
        await asyncio.wait([task])
