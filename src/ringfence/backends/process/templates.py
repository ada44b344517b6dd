"""Templates: what many sandboxes show of the host, mounted by bubblewrap once for all of them.

A bubblewrap of its own costs a start as much as all the rest that the kernel does for it. So one
mounts what a root is made of, alone in a namespace, and ends; we hold the namespace. Each sandbox
begins with a copy of it and gets a root of its own there: guest/agent/keep_root.c. Nothing that can
be written is shared.
"""

import asyncio
import fcntl
import os
import select
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from subprocess import PIPE, STDOUT, Popen
from typing import IO, cast

from ringfence.backends import exhausted
from ringfence.backends.process.command import template
from ringfence.backends.process.machine import Machine, said
from ringfence.backends.process.root import Entry
from ringfence.backends.process.starting import not_started

LEAST_DESCRIPTOR = 16
"""Of a template: no number that a keeper gets something as."""
_AGE_SECONDS = 60.0
"""A newer one shows what was mounted on the host since, where that is not passed on by itself."""
_IDLE_SECONDS = 5.0
_ANSWER_SECONDS = 20.0
_MOST = 8
_WORDS_BYTES = 4096

Key = tuple[str, str, tuple[object, ...]]


@dataclass(eq=False)
class _Template:
    """descriptor: of the mount namespace, open as long as this lives. made, used: when, on the
    monotonic clock in seconds."""

    descriptor: int
    made: float = field(default_factory=time.monotonic)
    used: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        weakref.finalize(self, os.close, self.descriptor)


@dataclass(eq=False)
class Templates:
    """Those of one event loop. They are given up when nothing has started with them for a while."""

    _made: dict[Key, _Template] = field(default_factory=dict)
    _making: dict[Key, asyncio.Future[_Template]] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None

    async def get(self, machine: Machine, root: Sequence[Entry]) -> int:
        """A descriptor of the mounts of `root`, to be passed on before anything is waited for.

        BackendUnavailableError when bubblewrap cannot make them, OSError when something has run
        out. Cancellation changes nothing for others that wait for the same.
        """
        key = _key(machine, root)
        found = self._made.get(key)
        if found is None or time.monotonic() - found.made > _AGE_SECONDS:
            found = await self._new(key, machine, root)
        found.used = time.monotonic()
        if self._timer is None:
            self._give_up_idle()
        return found.descriptor

    async def _new(self, key: Key, machine: Machine, root: Sequence[Entry]) -> _Template:
        making = self._making.get(key)
        if making is None:
            making = asyncio.ensure_future(asyncio.to_thread(_made, template(machine, root)))
            self._making[key] = making
            making.add_done_callback(partial(self._keep, key))
        return await asyncio.shield(making)

    def _keep(self, key: Key, making: asyncio.Future[_Template]) -> None:
        del self._making[key]
        if making.cancelled() or making.exception() is not None:
            return
        self._made[key] = making.result()
        if len(self._made) > _MOST:
            del self._made[min(self._made, key=lambda one: self._made[one].used)]

    def close(self) -> None:
        """Give up all of them: their loop has ended."""
        self._made.clear()

    def _give_up_idle(self) -> None:
        before = time.monotonic() - _IDLE_SECONDS
        self._made = {key: one for key, one in self._made.items() if one.used > before}
        self._timer = None
        if self._made:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_IDLE_SECONDS, self._give_up_idle)


def _key(machine: Machine, root: Sequence[Entry]) -> Key:
    """What it is that a template shows: a directory that was replaced is another one."""
    shown = []
    for entry in root:
        if entry.kind == "bind":
            status = os.stat(entry.source)  # noqa: PTH116 - a start does it
            shown.append((entry.target, entry.source, status.st_dev, status.st_ino))
    return machine.bwrap, machine.guest, tuple(shown)


def _made(args: list[str]) -> _Template:
    """What a bubblewrap mounts, once its holder says that it has. It ends before this does."""
    try:
        holder = Popen(args, stdin=PIPE, stdout=PIPE, stderr=STDOUT, env={})
    except OSError as error:
        if exhausted.told(error) is not None:
            raise
        raise not_started(f"{args[0]}: {error.strerror}") from None
    with holder:
        try:
            return _Template(_mounts(cast("IO[bytes]", holder.stdout)))
        except BaseException:
            holder.kill()
            raise


def _mounts(output: IO[bytes]) -> int:
    """A descriptor of the mounts of the process whose pid this says."""
    told = select.poll()
    told.register(output, select.POLLIN)
    if not told.poll(_ANSWER_SECONDS * 1000):
        raise not_started(f"bwrap: no answer within {_ANSWER_SECONDS:g} s")
    line = output.readline(_WORDS_BYTES)
    if not line.strip().isdigit():
        raise not_started(said(line + output.read(_WORDS_BYTES)))
    found = os.open(f"/proc/{int(line)}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fcntl.fcntl(found, fcntl.F_DUPFD_CLOEXEC, LEAST_DESCRIPTOR)
    finally:
        os.close(found)
