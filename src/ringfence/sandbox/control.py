"""What is asked of a sandbox as a whole."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Protocol, runtime_checkable

from ringfence.backends.base import Pausable
from ringfence.backends.finish import finish
from ringfence.errors import SandboxError, StateError, UnsupportedError
from ringfence.events import Paused, Resumed
from ringfence.guest.failures import file_error
from ringfence.guest.files import Files
from ringfence.guest.protocol import Cred, Failure
from ringfence.sandbox.commands import directory
from ringfence.sandbox.context import Context
from ringfence.spec import SandboxInfo, State, Usage
from ringfence.spec.quantity import check_interval

_LONG_LEASE = 86400.0 * 40
_S_IFMT, _S_IFDIR = 0o170000, 0o040000
_ENOTDIR = 20
_TMP = "/tmp"  # noqa: S108 - inside the sandbox, where every profile has a tmpfs


@runtime_checkable
class Countable(Protocol):
    """An instance whose open files can be counted."""

    async def open_files(self) -> int | None:
        """How many descriptors its processes hold; None without the right to look."""
        ...


@dataclass(frozen=True, slots=True)
class Health:
    """ok: its first process lives, the guest answered, and there is room to write. state: the
    runtime's word. latency: seconds the guest took, None without an answer. message: what is wrong,
    else None. disk_writable: None when it was not tried. idle: seconds since the last command or
    file operation, 0 while one goes on."""

    ok: bool
    state: State
    latency: float | None = None
    message: str | None = None
    disk_writable: bool | None = None
    idle: float | None = None


def info(context: Context) -> SandboxInfo:
    """See `Sandbox.info`."""
    record = context.instance.record
    life = context.life
    return SandboxInfo(
        id=record.id,
        backend=record.backend,
        state=life.state,
        image=context.spec.image,
        image_digest=record.image_digest,
        created=record.created,
        ends=life.ends,
        detached=context.spec.detached,
        labels=dict(context.spec.labels),
        transport=record.transport,
        reason=life.reason,
    )


async def state(context: Context) -> State:
    """See `Sandbox.state`."""
    context.life.check_loop("state")
    if context.life.state is State.EXITED and not context.spec.detached:
        return State.EXITED
    return await context.instance.state()


async def chdir(context: Context, path: str | PurePath) -> None:
    """See `Sandbox.chdir`."""
    path = directory(path, "chdir")
    with context.operation("chdir"):
        stat = await context.session.files.stat(path, await context.cred(None))
        if stat.mode & _S_IFMT != _S_IFDIR:
            raise file_error(
                "chdir", path.encode("utf-8", "surrogateescape"), Failure(_ENOTDIR, 0, "")
            )
    context.cwd = path


async def usage(context: Context) -> Usage:
    """See `Sandbox.usage`."""
    if not context.features.usage:
        raise UnsupportedError(
            f"usage: the {context.spec.backend} backend cannot measure{_why(context)}", op="usage"
        )
    with context.operation("usage", uses=False):
        return await measure(context)


def _why(context: Context) -> str:
    return f" here: {context.features.missing}" if context.features.missing else ""


async def measure(context: Context) -> Usage:
    """The usage alone, which does not count as using the sandbox."""
    found = await context.instance.usage()
    if found is None:
        raise UnsupportedError("usage: not to be had of this sandbox", op="usage")
    room = context.room()
    if room is None:
        return found
    return replace(found, disk_used=(room.f_blocks - room.f_bfree) * room.f_frsize)


async def open_files(context: Context) -> int | None:
    """See `Sandbox.open_files`."""
    instance = context.instance
    if not isinstance(instance, Countable):
        raise UnsupportedError(
            f"open_files: the {context.spec.backend} backend cannot count them", op="open_files"
        )
    with context.operation("open_files", uses=False):
        return await instance.open_files()


def stats(context: Context, interval: float) -> AsyncIterator[Usage]:
    """See `Sandbox.stats`."""
    check_interval(interval)
    return _Samples(context, interval)


class _Samples(AsyncIterator[Usage]):
    """The usage at an interval. No generator: that would end with the first wait for a sample that
    is cancelled."""

    def __init__(self, context: Context, interval: float) -> None:
        self._context = context
        self._interval = interval
        self._due = time.monotonic()

    async def __anext__(self) -> Usage:
        await asyncio.sleep(self._due - time.monotonic())
        if not self._context.life.ended:
            try:
                found = await usage(self._context)
                self._due = time.monotonic() + self._interval
                return found
            except SandboxError:
                if not self._context.life.ended:
                    raise
        raise StopAsyncIteration


async def health(context: Context) -> Health:
    """See `Sandbox.health`."""
    life = context.life
    if life.state is State.PAUSED:
        return Health(False, State.PAUSED, None, "it is paused", idle=life.idle)
    try:
        life.check("health")
        found = await context.instance.state()
        if found is not State.RUNNING:
            return Health(False, found, None, f"its runtime says that it is {found}")
        latency = await context.session.ping()
    except SandboxError as error:
        return Health(False, life.state, None, error.message, idle=life.idle)
    full = await _full(context)
    return Health(full is None, found, latency, full, full is None, life.idle)


async def answers(context: Context) -> bool:
    """Whether the guest answers; nothing else is asked, so that it takes no time."""
    try:
        context.life.check("health")
        await context.session.ping()
    except SandboxError:
        return False
    return True


async def _full(context: Context) -> str | None:
    """Why nothing can be written, None when it can: tried in /tmp, asked of a workspace's disk."""
    room = context.room()
    if room is not None and not room.f_bavail:
        return "no space is left in the workspace"
    path = f"{_TMP}/.ringfence-{secrets.token_hex(8)}"
    try:
        await finish(_written(context.session.files, path, context.default_user.cred))
    except SandboxError as error:
        return error.message
    return None


async def _written(files: Files, path: str, cred: Cred) -> None:
    """Written and removed again: who asks may be cancelled, as a monitor's look is by its end."""
    await files.write(path, cred, b"x")
    await files.remove(path, cred)


async def pause(context: Context) -> None:
    """See `Sandbox.pause`."""
    instance = context.instance
    if not context.features.pause or not isinstance(instance, Pausable):
        raise UnsupportedError(
            f"pause: the {context.spec.backend} backend cannot freeze a sandbox{_why(context)}",
            op="pause",
        )
    async with context.freezing:
        with context.operation("pause"):
            await finish(_pause(context, instance))


async def _pause(context: Context, instance: Pausable) -> None:
    session = context.session
    lease = session.lease_seconds
    # The guest's lease runs on while it is frozen.
    await session.lease(_LONG_LEASE)
    session.suspend()
    try:
        await instance.pause()
    except BaseException:
        session.resume()
        await session.lease(lease)
        raise
    finally:
        session.set_interval(lease)
    if context.life.ended:  # meanwhile
        raise context.life.over("pause")
    context.life.state = State.PAUSED
    context.freezes += 1
    context.bus.publish(Paused(sandbox_id=context.id))


async def resume(context: Context) -> None:
    """See `Sandbox.resume`."""
    async with context.freezing:
        instance = context.instance
        if context.life.state is not State.PAUSED or not isinstance(instance, Pausable):
            raise StateError(
                "resume: the sandbox is not paused", op="resume", sandbox_id=context.id
            )
        await finish(_resume(context, instance))


async def _resume(context: Context, instance: Pausable) -> None:
    life = context.life
    await instance.resume()
    context.session.resume()
    if life.ended:  # meanwhile
        raise life.over("resume")
    life.state = State.RUNNING
    life.touch()
    context.bus.publish(Resumed(sandbox_id=context.id))
    await context.session.lease(context.session.lease_seconds)


async def detach(context: Context) -> None:
    """See `Sandbox.detach`."""
    if not context.spec.detached:
        raise StateError(
            "detach: the sandbox was not opened with detached=True and ends with its holder",
            op="detach",
            sandbox_id=context.id,
        )
    await context.life.detach()
