"""The keeper of a sandbox, seen from Python: started, found again, told to end it all.

What it does is written in guest/agent/keep.c.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Self

from ringfence.backends.cgroups import Cgroup
from ringfence.backends.process import memory
from ringfence.backends.process.home import Home
from ringfence.backends.process.machine import said
from ringfence.errors import ResourceExhaustedError

_ERRORS_BYTES = 4096
_END_SECONDS = 30.0
_SWEEP_SECONDS = 1.0
_STANDARD = 2


def apart(descriptor: int) -> int:
    """A descriptor that is to be passed, under a number that is no standard one's: a keeper gets
    its own as those, one after the other. Closed under the old one. OSError."""
    if descriptor > _STANDARD:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _STANDARD + 1)
    finally:
        os.close(descriptor)


class Keeper:
    """A keeper by its pidfd, so that no other process is ever meant.

    lifeline: our end of its standard input; when it closes, an attached sandbox ends. errors: what
    it and bubblewrap wrote to standard error, until `started`. One that is our child is reaped by
    the loop in which it was started as soon as it ends, closed or not.
    """

    def __init__(self, pid: int, *, child: bool, lifeline: int = -1, errors: int = -1) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._child = child
        self._lifeline = lifeline
        self._errors = errors
        self._ended = self._closed = False
        self._waiters: list[asyncio.Future[None]] = []
        self._at_end: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        if child:
            self._watch()

    @classmethod
    def spawn(cls, args: list[str], *, attached: bool, passed: Mapping[int, int]) -> Self:
        """Start one, in a session of its own. passed: more of our descriptors, by the number that
        it has each as, each `apart`. OSError."""
        errors = apart(os.memfd_create("errors", os.MFD_CLOEXEC))
        ours = theirs = -1
        try:
            if attached:
                theirs, ours = os.pipe()
            else:
                theirs = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            pid = os.posix_spawn(
                args[0],
                args,
                {},
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, theirs, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, errors, 2),
                    *((os.POSIX_SPAWN_DUP2, here, there) for there, here in passed.items()),
                ),
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        except BaseException:
            for descriptor in (errors, ours):
                if descriptor >= 0:
                    os.close(descriptor)
            raise
        finally:
            if theirs >= 0:
                os.close(theirs)
        try:
            return cls(pid, child=True, lifeline=ours, errors=errors)
        except BaseException:
            # Without a handle it must not live. It is our child still, so its pid is its own.
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
            for descriptor in (errors, ours):
                if descriptor >= 0:
                    os.close(descriptor)
            raise

    @classmethod
    def find(cls, home: Home) -> Self | None:
        """The one that looks after `home`, None when it has ended."""
        pid = home.keeper()
        if pid is None:
            return None
        try:
            found = cls(pid, child=False)
        except ProcessLookupError:
            return None
        if home.keeper() != pid:
            found.close()
            return None
        return found

    def alive(self) -> bool:
        """Whether it lives; it is reaped when it does not."""
        if self._ended or self._pidfd < 0:
            return False
        if self._child:
            with contextlib.suppress(ChildProcessError):
                if os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG) is None:
                    return True
        else:
            try:
                signal.pidfd_send_signal(self._pidfd, 0)
            except ProcessLookupError:
                pass
            else:
                return True
        self._ended = True
        return False

    def end(self) -> None:
        """Have it kill the sandbox and clear up. Idempotent; `ended` says when it is done."""
        if self._pidfd >= 0 and not self._ended:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    async def ended(self) -> None:
        """Until it has ended. Cancellation changes nothing."""
        if not self.alive():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self.told(waiter):
            await waiter

    @contextlib.contextmanager
    def told(self, waiter: "asyncio.Future[None]") -> Iterator[None]:
        """Resolve `waiter` when it ends meanwhile; it was alive just before."""
        self._watch()
        self._waiters.append(waiter)
        try:
            yield
        finally:
            self._waiters.remove(waiter)

    def at_end(self, call: Callable[[], None]) -> None:
        """Call this when it ends, which is our child, unless it is closed before; at once where its
        end was told already."""
        if self._ended and self._loop is None:
            call()
        else:
            self._at_end.append(call)

    def _watch(self) -> None:
        """Have the running loop tell of its end."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._unwatch()
            loop.add_reader(self._pidfd, self._notice)
            self._loop = loop

    def _unwatch(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._pidfd)
        self._loop = None

    def _notice(self) -> None:
        self._unwatch()
        self.alive()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        for call in self._at_end:
            call()
        if self._closed:
            self._release()

    def words(self) -> str:
        """What it and bubblewrap complained of so far."""
        if self._errors < 0:
            return ""
        return said(os.pread(self._errors, _ERRORS_BYTES, 0))

    def started(self) -> None:
        """Nothing can go wrong with the start any more: forget its words."""
        if self._errors >= 0:
            os.close(self._errors)
            self._errors = -1

    def close(self) -> None:
        """Let go of it: an attached sandbox ends, a detached one goes on. Idempotent."""
        self.started()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        self._at_end.clear()
        self._closed = True
        if self._loop is None or not self._child or not self.alive():
            self._release()

    @property
    def released(self) -> bool:
        """Whether nothing can be asked of it here any more; `find` finds it again."""
        return self._pidfd < 0

    def _release(self) -> None:
        if self._pidfd >= 0:
            self._unwatch()
            os.close(self._pidfd)
            self._pidfd = -1


async def end(keeper: Keeper, home: Home, cgroup: Cgroup | None) -> None:
    """Have the keeper end all of it, wait for that, and remove what a killed keeper left."""
    keeper.end()
    try:
        async with asyncio.timeout(_END_SECONDS):
            await keeper.ended()
    except TimeoutError:
        raise ResourceExhaustedError(
            f"delete: the sandbox is not dead after {_END_SECONDS:g} s: one of its processes hangs"
            " in the kernel",
            op="delete",
            sandbox_id=home.id,
        ) from None
    keeper.close()
    if home.path.exists() and home.keeper() is None:
        sweep(home, cgroup)


def sweep(home: Home, cgroup: Cgroup | None) -> None:
    """Kill and remove what a keeper that was killed itself has left behind."""
    until = time.monotonic() + _SWEEP_SECONDS
    while cgroup is not None and cgroup.exists() and time.monotonic() < until:
        cgroup.kill()
        cgroup.remove()
    home.remove()
    memory.leave(home.path.parent)
