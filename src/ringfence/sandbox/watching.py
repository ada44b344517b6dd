"""What the holder of a sandbox watches, because no kernel holds it."""

import asyncio
import time
from typing import Protocol, runtime_checkable

from ringfence.backends.base import Features
from ringfence.backends.sized import is_watched
from ringfence.errors import SandboxError, SandboxLostError
from ringfence.events import LimitHit
from ringfence.policy import Facts
from ringfence.sandbox.life import Life
from ringfence.spec import SandboxSpec, State

LOOK_SECONDS = 1.0
_SHARE, _LONGEST_SECONDS = 20, 10.0
"""Between two looks, this many times as long passes as one took, but no longer than that."""


@runtime_checkable
class Written(Protocol):
    """An instance that knows how much was written into it."""

    async def written(self) -> int:
        """Bytes of what was written outside of tmpfs and mounts. SandboxLostError."""
        ...


def watch_limits(life: Life, granted: SandboxSpec, facts: Facts, features: Features) -> None:
    """Watch what of these limits has to be watched, beside the sandbox, until it ends."""
    limits = granted.limits
    if limits.cpu_time is not None:
        life.watch(life.watch_cpu_time(limits.cpu_time, facts.cpus))
    instance = life.instance
    if limits.disk is not None and is_watched(granted, features) and isinstance(instance, Written):
        life.watch(watch_disk(life, instance, limits.disk))


async def watch_disk(life: Life, instance: Written, limit: int) -> None:
    """Kill all commands whenever more than `limit` bytes are written and they have become more.

    What removes files is left alone, so that the sandbox can be got below its limit again. Between
    two looks any amount can be written. Runs until the sandbox has ended.
    """
    before = 0
    while not life.ended:
        begin = time.monotonic()
        try:
            used = await instance.written()
            if used > max(limit, before) and life.state is State.RUNNING:
                counters = {"used": used, "size": limit, "killed": await life.session.kill_all()}
                hit = LimitHit(
                    sandbox_id=life.id, limit="disk", detail="watched", counters=counters
                )
                life.bus.publish(hit)
                used = await instance.written()  # what they wrote until they were dead is no growth
            before = used
        except SandboxLostError:
            return
        except SandboxError:
            pass  # looked at again: the Engine may be busy
        pause = _SHARE * (time.monotonic() - begin)
        await asyncio.sleep(max(LOOK_SECONDS, min(pause, _LONGEST_SECONDS)))
