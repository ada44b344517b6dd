"""One exec inside the mock: a coroutine that behaves like a process."""

import asyncio
import errno
import os
import posixpath
import signal
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from ringfence.backends.mock.node import failure
from ringfence.backends.mock.pipes import Receiver, Sender
from ringfence.backends.mock.script import Answer, settle
from ringfence.backends.mock.tree import Tree
from ringfence.guest.protocol import EXIT, UNKNOWN, Cred, ExecFlag
from ringfence.guest.protocol import Answer as Op

Program = Callable[["Process"], Awaitable[Answer] | Answer]
"""What a process runs; every Command is one."""

TIMEOUT, KILLED, OUTPUT_CAP = 1, 2, 3
_HARMLESS = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
_DRAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """An EXEC frame. timeout, grace: seconds; caps: bytes or None."""

    flags: int
    who: Cred
    timeout: float
    grace: float
    stdout_cap: int | None
    stderr_cap: int | None
    cwd: bytes
    args: tuple[bytes, ...]
    env: tuple[bytes, ...]
    stdin: bytes


class Process:
    """An exec from STARTED to EXIT, and what is held of it afterwards. It is its command's Call.

    ignored: signals that its command has chosen to ignore. exit: the payload of EXIT, once it has
    ended. listener: sends a frame of this exec to the session that is attached to it.
    """

    def __init__(self, asked: Asked, pid: int, tree: Tree, stdin: Receiver) -> None:
        text = [arg.decode("utf-8", "surrogateescape") for arg in asked.args]
        self.args = tuple(text)
        self.env: Mapping[str, str] = variables(asked.env)
        self.cwd = asked.cwd.decode("utf-8", "surrogateescape")
        self.who = asked.who
        self.asked = asked
        self.pid = pid
        self.tree = tree
        self.ignored: set[int] = set()
        self.held = bool(asked.flags & ExecFlag.HOLD)
        keep = 1024 * 1024 if self.held else 0
        self.out = Sender(None, cap=asked.stdout_cap, keep=keep)
        self.err = Sender(None, cap=asked.stderr_cap, keep=keep)
        self.stdin = stdin
        self.exit: bytes | None = None
        self.listener: Callable[[int, bytes], None] | None = None
        self._begun = time.monotonic()
        self._reason = 0
        self._signal = 0
        self._entered = False
        self._executing = True
        self._task: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []

    # What its command does.

    async def read(self, size: int = 65536) -> bytes:
        """Up to `size` bytes of stdin; b"" at its end."""
        return await self.stdin.read(size)

    async def stdout(self, data: bytes) -> None:
        """Write to stdout, waiting like a process on a full pipe."""
        await self.out.write(data)
        await self._check_cap(self.out)

    async def stderr(self, data: bytes) -> None:
        """Write to stderr, likewise."""
        if self.asked.flags & ExecFlag.STDERR_TO_STDOUT:
            await self.stdout(data)
        else:
            await self.err.write(data)
            await self._check_cap(self.err)

    async def _check_cap(self, sender: Sender) -> None:
        """End the command, right here, when it wrote more than it may."""
        if sender.over_cap and self.asked.flags & ExecFlag.KILL_ON_CAP:
            self.end(OUTPUT_CAP, signal.SIGKILL)
            await asyncio.sleep(0)

    def place(self, path: str) -> bytes:
        """`path` as absolute bytes, seen from the working directory."""
        return posixpath.join(self.cwd, path).encode("utf-8", "surrogateescape")

    def read_file(self, path: str) -> bytes:
        """A file, with the permissions of the command's user. OSError."""
        return bytes(self.tree.open_read(self.place(path), self.who).data)

    def write_file(self, path: str, data: bytes, *, append: bool = False) -> None:
        """Write a file, likewise."""
        place = self.place(path)
        node = self.tree.open_write(place, self.who, create=True, exclusive=False, mode=0o644)
        if not append:
            node.data.clear()
        node.data += data
        self.tree.modified(node, place)

    # What the guest does with it.

    def start(self, command: Program, done: Callable[["Process"], None]) -> None:
        """Run `command`; `done` is called when its EXIT is ready and all output is sent."""
        self._task = asyncio.get_running_loop().create_task(self._run(command, done))
        if self.asked.timeout:
            self._later(self.asked.timeout, self._time_out)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, action))

    def _time_out(self) -> None:
        self._reason = TIMEOUT
        if self.asked.grace and signal.SIGTERM in self.ignored:
            self._later(self.asked.grace, lambda: self.end(TIMEOUT, signal.SIGKILL))
        else:
            self.end(TIMEOUT, signal.SIGTERM if self.asked.grace else signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Deliver a signal: it ends the command unless that ignores it. Stopping is not done."""
        harmless = number in _HARMLESS or number in self.ignored
        if number == signal.SIGKILL or not harmless:
            self.end(self._reason, number)

    def end(self, reason: int, number: int) -> None:
        """End the command by a signal."""
        if self._task is not None and self._executing and not self._signal:
            self._reason, self._signal = reason, number
            if self._entered:  # a task cancelled before that would never tell its end
                self._task.cancel()

    def detach(self) -> None:
        """No session listens any more."""
        self.listener = None
        self.out.detach()
        self.err.detach()

    def repeat_exit(self) -> None:
        """Send EXIT to a session that attached after the end, behind the output."""
        self._task = asyncio.get_running_loop().create_task(self._repeat_exit())

    async def _repeat_exit(self) -> None:
        await asyncio.gather(self.out.drain(), self.err.drain())
        if self.listener is not None:
            self.listener(Op.EXIT, self.exit or b"")

    async def _run(self, command: Program, done: Callable[["Process"], None]) -> None:
        status = 0
        self._entered = True
        try:
            if not self._signal:
                status = (await self._execute(command) & 0xFF) << 8
        except asyncio.CancelledError:
            if not self._signal:
                raise
        status = self._signal or status
        self._executing = False
        for timer in self._timers:
            timer.cancel()
        await self._drain()
        self.exit = self._report(status)
        self._task = None
        done(self)

    async def _execute(self, command: Program) -> int:
        try:
            return await settle(command(self))
        except OSError as error:
            await self.stderr(os.fsencode(f"{self.args[0]}: {error.strerror}\n"))
            return 1
        except Exception:
            await self.stderr(os.fsencode(traceback.format_exc()))
            return 70

    async def _drain(self) -> None:
        waiting: Awaitable[object] = asyncio.gather(self.out.drain(), self.err.drain())
        if self._signal:
            waiting = asyncio.wait_for(waiting, _DRAIN_SECONDS)
        try:
            await waiting
        except TimeoutError:
            return

    def _report(self, status: int) -> bytes:
        wall = int((time.monotonic() - self._begun) * 1e6)
        killed = 1 if self._signal else 0
        totals = (self.out.total, self.err.total)
        return EXIT.pack(status, self._reason, 0, killed, killed, UNKNOWN, *totals, wall, *(0,) * 9)


def variables(env: tuple[bytes, ...]) -> dict[str, str]:
    """An environment by name."""
    pairs = [item.decode("utf-8", "surrogateescape").partition("=") for item in env]
    return {name: value for name, _, value in pairs}


def directory(tree: Tree, path: bytes, who: Cred) -> None:
    """OSError unless `who` could make `path` its working directory."""
    node = tree.find(path, who)
    if not node.is_directory:
        raise failure(errno.ENOTDIR)
    node.check(who, 1)
