"""Limits that a command met, told as events with the kernel's counters."""

import os
from typing import Protocol, runtime_checkable

from ringfence.errors import SandboxError
from ringfence.sandbox import tmpfs
from ringfence.sandbox.context import Context
from ringfence.spec import ExecResult, Reason

_LIMIT_OF = {
    Reason.TIMEOUT: "timeout",
    Reason.CPU_TIME: "cpu_time",
}


@runtime_checkable
class Near(Protocol):
    """An instance whose usage takes no time. pid: of its first process here, 0 when elsewhere."""

    pid: int


class Hits:
    """Publishes LimitHit for the commands of one sandbox."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._refused = 0

    def ended(self, outcome: ExecResult, *, collected: bool = True) -> None:
        """What the result itself tells: timeout, cpu_time, memory, output; and a full disk.

        collected: whether the result holds the output, so that what it lacks was dropped.
        """
        life, usage, name = self._context.life, outcome.usage, outcome.args[0]
        if (limit := _LIMIT_OF.get(outcome.reason)) is not None:
            spent = usage.user_seconds + usage.system_seconds
            life.hit(limit, name, duration=outcome.duration, cpu_seconds=spent)
        if outcome.reason is Reason.OOM_KILLED or usage.oom_kills:
            life.hit("memory", name, oom_kills=usage.oom_kills or 0, max_rss=usage.max_rss)
        cut = collected and (outcome.stdout_truncated or outcome.stderr_truncated)
        if cut or outcome.reason is Reason.OUTPUT_LIMIT:
            totals = {"stdout_total": outcome.stdout_total, "stderr_total": outcome.stderr_total}
            life.hit("output", name, **totals)
        room = None if outcome.ok else self._context.room()
        if room is not None and full(room):
            size, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
            life.hit("disk", name, size=size, free=free)

    async def look(self, outcome: ExecResult) -> None:
        """Whether forks were refused, and which tmpfs is full: for a command that failed."""
        await self._look_at_forks(outcome)
        await self._look_at_tmpfs(outcome)

    async def _look_at_forks(self, outcome: ExecResult) -> None:
        instance = self._context.instance
        if not isinstance(instance, Near) or not instance.pid:
            return
        try:
            usage = await instance.usage()
        except SandboxError:
            return
        refused = 0 if usage is None else usage.forks_refused or 0
        if refused > self._refused:
            more = refused - self._refused
            self._context.life.hit("pids", outcome.args[0], forks_refused=more)
        self._refused = max(self._refused, refused)

    async def _look_at_tmpfs(self, outcome: ExecResult) -> None:
        context = self._context
        limited = context.limited_tmpfs
        if not limited:
            return
        try:
            spaces = await context.session.spaces(list(limited))
        except SandboxError:  # an older guest, or it has ended
            return
        for (path, limit), space in zip(limited.items(), spaces, strict=True):
            if tmpfs.is_used_up(space):
                detail = f"{outcome.args[0]}: {path}"
                left = {"free": space.free, "free_files": space.free_files}
                context.life.hit(limit, detail, size=space.size, **left)


def full(room: os.statvfs_result) -> bool:
    """Whether a command that failed can have failed for want of disk."""
    return tmpfs.is_full(room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize)
