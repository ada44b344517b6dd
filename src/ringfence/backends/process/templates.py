"""Templates: what many sandboxes show of the host, mounted by bubblewrap once for all of them.

A bubblewrap of its own costs a start as much as all the rest that the kernel does for it. So one
mounts what a root is made of, alone in a namespace, and ends; we hold the namespace. Each sandbox
begins with a copy of it and gets a root of its own there: guest/agent/keep_root.c. Nothing that can
be written is shared.
"""

import asyncio
import errno
import fcntl
import os
import select
import time
import weakref
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from functools import partial
from subprocess import PIPE, STDOUT, Popen
from typing import IO, ClassVar, cast

from ringfence.backends import exhausted
from ringfence.backends.process.bubblewrap import template
from ringfence.backends.process.machine import Machine, said
from ringfence.backends.process.root import Entry
from ringfence.backends.process.starting import not_started

LEAST_DESCRIPTOR = 16
"""Of a template: no number that a keeper gets something as."""
_AGE_SECONDS = 60.0
"""A newer one shows what was mounted on the host since, where that is not passed on by itself."""
_IDLE_SECONDS = 5.0
_ANSWER_SECONDS = 20.0
_MOST = 64
_WORDS_BYTES = 4096

Key = tuple[str, str, tuple[object, ...]]


@dataclass(eq=False)
class Template:
    """Held by who starts a sandbox until it is passed on. descriptor: of the mount namespace, open
    as long as this lives. made: when, on the monotonic clock in seconds."""

    descriptor: int
    made: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        weakref.finalize(self, os.close, self.descriptor)


@dataclass(eq=False)
class _Kind:
    """Sandboxes that show the same. used: when one started last, on the monotonic clock."""

    used: float
    template: Template | None = None
    making: asyncio.Future[Template] | None = None


@dataclass(eq=False)
class Templates:
    """Those of one event loop. They are given up when nothing has started with them for a while.

    at_once: whether the first of a kind gets one, too.
    """

    at_once: ClassVar[bool] = False
    _kinds: dict[Key, _Kind] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None
    _ending: AsyncGenerator[None, None] | None = None

    async def get(
        self, machine: Machine, root: Sequence[Entry], *, now: bool = False
    ) -> Template | None:
        """The mounts of `root`; None for the first of a kind, unless it is wanted `now`: should it
        stay the only one, its own bubblewrap costs less.

        BackendUnavailableError when bubblewrap cannot make them, OSError when something has run
        out. Cancellation changes nothing for others that wait for the same.
        """
        if self._ending is None:
            self._ending = self._end_with_loop()
            await anext(self._ending)
        used = time.monotonic()
        key = _key(machine, root)
        known = self._kinds.pop(key, None)
        kind = self._kinds[key] = known or _Kind(used)
        kind.used = used
        self._give_up_more()
        if known is None and not (now or self.at_once):
            return None
        held = kind.template
        if held is None or used - held.made > _AGE_SECONDS:
            held = await _renewed(kind, template(machine, root))
        return held

    async def _end_with_loop(self) -> AsyncGenerator[None, None]:
        """`asyncio.run` ends what generators are left before it closes its loop."""
        try:
            yield
        finally:
            self.close()

    def _give_up_more(self) -> None:
        while len(self._kinds) > _MOST:  # the first is the one that was used last the longest ago
            del self._kinds[next(iter(self._kinds))]
        if self._timer is None:
            self._give_up_idle()

    def close(self) -> None:
        """Give up all of them: their loop has ended."""
        self._kinds.clear()

    def _give_up_idle(self) -> None:
        before = time.monotonic() - _IDLE_SECONDS
        self._kinds = {key: kind for key, kind in self._kinds.items() if kind.used > before}
        self._timer = None
        if self._kinds:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_IDLE_SECONDS, self._give_up_idle)


async def _renewed(kind: _Kind, args: list[str]) -> Template:
    """A new template, made once for all that wait for it."""
    if kind.making is None:
        kind.making = asyncio.ensure_future(asyncio.to_thread(_made, args))
        kind.making.add_done_callback(partial(_keep, kind))
    return await asyncio.shield(kind.making)


def _keep(kind: _Kind, making: asyncio.Future[Template]) -> None:
    kind.making = None
    if not making.cancelled() and making.exception() is None:
        kind.template = making.result()


def _key(machine: Machine, root: Sequence[Entry]) -> Key:
    """What it is that a template shows: a directory that was replaced is another one."""
    shown = []
    for entry in root:
        if entry.kind == "bind":
            status = os.stat(entry.source)  # noqa: PTH116 - a start does it
            shown.append((entry.target, entry.source, status.st_dev, status.st_ino))
    return machine.bwrap, machine.guest, tuple(shown)


def _made(args: list[str]) -> Template:
    """What a bubblewrap mounts, once its holder says that it has. It ends before this does."""
    try:
        holder = Popen(args, stdin=PIPE, stdout=PIPE, stderr=STDOUT, env={})
    except OSError as error:
        if exhausted.told(error) is not None:
            raise
        raise not_started(f"{args[0]}: {error.strerror}") from None
    with holder:
        try:
            return Template(_mounts(_answer(cast("IO[bytes]", holder.stdout))))
        finally:  # the end of its standard input is not told where a fork of ours has that, too
            holder.kill()


def _answer(output: IO[bytes]) -> int:
    """The pid that the holder says, after what bubblewrap says before."""
    told = select.poll()
    told.register(output, select.POLLIN)
    end = time.monotonic() + _ANSWER_SECONDS
    words = b""
    while told.poll(max(0.0, end - time.monotonic()) * 1000):
        more = os.read(output.fileno(), _WORDS_BYTES)
        words += more
        line = words.rpartition(b"\n")[0].rpartition(b"\n")[2]
        if line.isdigit():
            return int(line)
        if not more or len(words) > _WORDS_BYTES:
            raise not_started(said(words))
    raise not_started(f"{said(words) or 'bwrap'}: no answer within {_ANSWER_SECONDS:g} s")


def _mounts(pid: int) -> int:
    """A descriptor of the mounts of this process."""
    found = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fcntl.fcntl(found, fcntl.F_DUPFD_CLOEXEC, LEAST_DESCRIPTOR)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # No number is that high here.
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from None
    finally:
        os.close(found)
