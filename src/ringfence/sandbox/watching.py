"""What the holder of a sandbox watches, because no kernel holds it."""

import asyncio
import contextlib
import math
import os
import time
from typing import Protocol, runtime_checkable

from ringfence.backends.base import Counted, Features, Instance
from ringfence.backends.sized import is_watched
from ringfence.errors import SandboxError, SandboxLostError
from ringfence.guest.protocol import Feature
from ringfence.guest.session import Session
from ringfence.ledger.reasons import CPU_TIME
from ringfence.policy import Facts
from ringfence.sandbox.life import Life
from ringfence.sandbox.needs import cpu_time_refused
from ringfence.spec import SandboxSpec, State

LOOK_SECONDS = 1.0
_SHORTEST_LOOK, _LONGEST_LOOK = 0.02, 5.0
"""Between two looks at the processor time."""
_SHARE, _LONGEST_SECONDS = 20, 10.0
"""Between two looks at the disk: this many times as long as one took, but no longer than that."""


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
        life.watch(watch_cpu_time(life, limits.cpu_time, facts.cpus))
    instance = life.instance
    if limits.disk is not None and is_watched(granted, features) and isinstance(instance, Written):
        life.watch(watch_disk(life, instance, limits.disk))


async def have_guest_watch(
    instance: Instance, session: Session, granted: SandboxSpec, facts: Facts
) -> None:
    """Let the guest of a detached sandbox watch its processor time: its holder may leave.

    UnsupportedError where the guest can see no counter of it.
    """
    limit = granted.limits.cpu_time
    if limit is None or not granted.detached:
        return
    counter = instance.cpu_counter() if isinstance(instance, Counted) else None
    if counter is None:
        raise cpu_time_refused(granted)
    try:
        if not session.hello.features & Feature.DESCRIPTORS:
            raise cpu_time_refused(granted)
        await session.cpu_time(counter, limit, max(1, math.ceil(facts.cpus)))
    finally:
        os.close(counter)


async def watch_cpu_time(life: Life, limit: float, cores: float) -> None:
    """End it when it has used `limit` seconds of processor time, of which it can use `cores` a
    second."""
    while True:
        try:
            usage = await life.instance.usage()
        except SandboxError:
            return
        left = limit - (usage.cpu_seconds or 0.0 if usage is not None else 0.0)
        if left <= 0:
            break
        await asyncio.sleep(min(max(left / cores, _SHORTEST_LOOK), _LONGEST_LOOK))
    life.reason = CPU_TIME
    life.hit(CPU_TIME, f"{limit:g} s of processor time", cpu_seconds=limit - left)
    with contextlib.suppress(SandboxError):
        await life.session.kill_all()
    life.end(CPU_TIME)


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
                life.hit("disk", "watched", **counters)
                used = await instance.written()  # what they wrote until they were dead is no growth
            before = used
        except SandboxLostError:
            return
        except SandboxError:
            pass  # looked at again: the Engine may be busy
        pause = _SHARE * (time.monotonic() - begin)
        await asyncio.sleep(max(LOOK_SECONDS, min(pause, _LONGEST_SECONDS)))
