"""Short questions to the guest, and what is asked about the sandbox as a whole."""

import asyncio
import math
import os
import struct
from collections.abc import Callable, Sequence
from functools import partial

from ringfence.errors import SandboxError, UnsupportedError
from ringfence.guest import control
from ringfence.guest.connection import TICKS, Connection, Hello
from ringfence.guest.control import ListedExec, Space, User
from ringfence.guest.given import text
from ringfence.guest.operation import ANSWER_SECONDS, Question, T, nothing
from ringfence.guest.payload import Payload, malformed
from ringfence.guest.protocol import Answer, Ask, Failure, Feature, string, strings


class Asking(Connection):
    """A connection that asks. Errors, besides those of each question: StateError after the end,
    SandboxLostError when it comes meanwhile, DeadlineExceededError after a minute."""

    hello: Hello

    async def filter(self, code: bytes) -> None:
        """Have every command from now on start under this seccomp program; empty is none.

        code: an array of struct sock_filter. UnsupportedError when the guest has no filter.
        """
        if not self.hello.features & Feature.FILTER:
            raise UnsupportedError("filter: the guest of this sandbox installs none", op="filter")
        await self.begin_filter(code)

    def begin_filter(self, code: bytes) -> asyncio.Future[None]:
        """`filter` for a guest that has one, without waiting for the answer."""
        return self.ask("filter", Ask.FILTER, code, Answer.DONE, nothing)

    async def cpu_time(self, counter: int, limit: float, processors: int) -> None:
        """Have the guest kill all commands, and start no more, once `limit` seconds of processor
        time are used, of which it can use `processors` a second.

        counter: an open `cpu.stat` or `cpuacct.usage` of its cgroup, which stays the caller's.
        UnsupportedError when no descriptor reaches the guest.
        """
        if not self.hello.features & Feature.DESCRIPTORS:
            raise UnsupportedError("cpu_time: the guest of this sandbox is on no socket", op="open")
        await self.clear()
        failure = failure_of("cpu_time", "limits.cpu_time")
        question = Question("cpu_time", Answer.DONE, nothing, failure)
        operation_id = self.register(question, ANSWER_SECONDS)
        payload = struct.pack("<QI", math.ceil(limit * 1e6), processors)
        try:
            self.send_with((counter,), Ask.CPU_TIME, operation_id, payload)
        except SandboxError:
            self.drop(question)
            raise
        await question.future

    async def ping(self) -> float:
        """Seconds that the guest took to answer."""
        begin = self._loop.time()
        nonce = os.urandom(8)
        answer = await self.ask("ping", Ask.PING, nonce, Answer.PONG, partial(Payload.raw, size=8))
        if answer != nonce:
            self.lose(malformed("a PONG that answers no PING"))
        return self._loop.time() - begin

    async def user(self, name: str = "") -> User:
        """Look up "", a name, "uid", "uid:gid" or "name:group" in the sandbox. NotFoundError."""
        return await self.begin_user(name)

    def begin_user(self, name: str = "") -> asyncio.Future[User]:
        """`user` without waiting for the answer."""
        payload = string(text(name, "user"))
        return self.ask("user", Ask.USER, payload, Answer.USER, control.unpack_user, name)

    async def list(self) -> Sequence[ListedExec]:
        """The execs that the guest knows: running, or ended and held."""
        return await self.ask("list", Ask.LIST, b"", Answer.LIST, control.unpack_list)

    async def spaces(self, places: Sequence[str]) -> Sequence[Space]:
        """How full the tmpfs at these places are. UnsupportedError."""
        if not self.hello.features & Feature.SPACE:
            raise UnsupportedError("space: the guest of this sandbox does not tell", op="space")
        payload = strings([text(place, "a place") for place in places])
        parse = partial(control.unpack_spaces, count=len(places))
        return await self.ask("space", Ask.SPACE, payload, Answer.SPACE, parse)

    async def kill_all(self) -> int:
        """Kill every process of every exec; how many there were."""
        return await self.ask("kill_all", Ask.KILL_ALL, b"", Answer.DONE, Payload.u32)

    async def lease(self, lease: float, lifetime: float | None = None) -> None:
        """Set the lease and the lifetime from now on, in seconds; None leaves the lifetime."""
        payload = leased(lease, lifetime)
        await self.ask("lease", Ask.LEASE, payload, Answer.DONE, nothing)
        self._interval = lease / TICKS

    @property
    def lease_seconds(self) -> float:
        """The lease that keep-alive renews."""
        return self._interval * TICKS

    def set_interval(self, lease: float) -> None:
        """Keep alive for `lease` seconds from now on, without telling the guest."""
        self._interval = lease / TICKS

    def ask(  # noqa: PLR0917 - a question has so many parts
        self,
        name: str,
        op: int,
        payload: bytes,
        expect: int,
        parse: Callable[[Payload], T],
        what: str = "",
    ) -> asyncio.Future[T]:
        """Send one question; await its parsed answer. A FAIL is raised as `control` maps it."""
        question = Question(name, expect, parse, failure_of(name, what or name))
        self.issue(question, op, payload, ANSWER_SECONDS)
        return question.future


def failure_of(op: str, what: str) -> Callable[[Failure], SandboxError]:
    """What makes an error of a FAIL, for `op` on `what`."""
    return lambda failure: control.failed(op, failure, what)


def leased(lease: float, lifetime: float | None) -> bytes:
    """A lease and a lifetime, in seconds, as the guest reads them."""
    return struct.pack("<IQ", round(lease * 1000), round((lifetime or 0) * 1000))
