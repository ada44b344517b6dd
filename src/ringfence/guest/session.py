"""A session with the guest of one sandbox: the client side of docs/guest-protocol.md.

Written once, for every backend. It runs commands (`run`, `spawn`, `attach`), asks about the
sandbox (`user`, `list`, ...) and reaches its files (`files`).

Errors of all methods, besides their own: StateError after `close`, SandboxLostError when the
session ended or ends meanwhile, DeadlineExceededError when the guest leaves a short question
unanswered for a minute.
"""

import asyncio
import errno
import math
import os
import struct
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Self

from ringfence.errors import (
    DeadlineExceededError,
    SandboxError,
    SandboxLostError,
    UnsupportedError,
)
from ringfence.guest import control, execs
from ringfence.guest.connection import TICKS, Connection, Hello
from ringfence.guest.control import ListedExec, User
from ringfence.guest.execs import Exec
from ringfence.guest.files import Files
from ringfence.guest.forward import LOOPBACK, Forward, Listener, OnConnection
from ringfence.guest.operation import ANSWER_SECONDS, Question, T, nothing
from ringfence.guest.places import Places
from ringfence.guest.protocol import (
    HEADER,
    MARKER_BYTES,
    VERSION,
    Answer,
    Ask,
    Failure,
    Feature,
    Payload,
    malformed,
    string,
    text,
)
from ringfence.guest.request import ExecRequest, Exit, NotStarted
from ringfence.guest.streams import Output
from ringfence.guest.tcp import Stream

Connect = Callable[[Callable[[], asyncio.BaseProtocol]], Awaitable[asyncio.Transport]]

_SHUTDOWN_SECONDS = 2.0
EXECS_AT_ONCE = 1000
"""Commands of one session under way at once; each takes four of the guest's descriptors."""


_BEFORE_THE_START = (1, 5)
"""Stages of a NotStarted at which descriptors are made."""


def _nothing() -> None:
    pass


def _nothing_of(_: "Session") -> None:
    pass


class Session(Connection):
    """One session; `start` makes it. At most one exists per sandbox at a time."""

    hello: Hello

    def __init__(self, lease: float) -> None:
        super().__init__(lease)
        self.files = Files(self)
        self.forward = Forward(self)
        self._places = Places(EXECS_AT_ONCE)

    @classmethod
    async def start(
        cls,
        connect: Connect,
        *,
        marker: bytes = b"",
        next_marker: bytes = b"",
        lease: float = 10.0,
        lifetime: float | None = None,
        detached: bool = False,
        deadline: float = 10.0,
        first: Callable[[Self], object] = _nothing_of,
    ) -> Self:
        """Connect through `connect` (an `Instance.connect`) and greet the guest.

        marker: the 16 bytes that the guest looks for, empty when it looks for none. next_marker:
        what it shall look for after this session. lease, lifetime (None: unchanged), deadline:
        seconds. first: asks what is to be sent along with the greeting; nothing is known of the
        guest then. Raises DeadlineExceededError when the guest does not answer within `deadline`,
        UnsupportedError for another protocol version, GuestError, SandboxLostError. An error or
        cancellation closes the stream.
        """
        session = cls(lease)
        try:
            async with asyncio.timeout(deadline):
                await connect(lambda: session)
                with session.together():
                    session._say_hello(marker, next_marker, lifetime, detached)
                    first(session)
                await session._hear_hello()
        except BaseException as error:
            session.lose(SandboxLostError("no session came about", op="open"))
            if isinstance(error, TimeoutError) and not isinstance(error, SandboxError):
                raise DeadlineExceededError(
                    f"the guest did not answer within {deadline} s: see whether the sandbox still "
                    "runs, or give it a longer deadline",
                    op="open",
                ) from None
            raise
        session.keep_alive()
        return session

    def _say_hello(
        self, marker: bytes, next_marker: bytes, lifetime: float | None, detached: bool
    ) -> None:
        own = os.urandom(MARKER_BYTES)
        self._greeting = HEADER.pack(0, Answer.HELLO, 0)[4:] + own
        payload = (
            VERSION.to_bytes(4, "little")
            + own
            + (next_marker or bytes(MARKER_BYTES))
            + _lease(self._interval * TICKS, lifetime)
            + bytes((detached,))
        )
        if self._transport is not None:
            self._transport.write(marker)
        self.send(Ask.HELLO, 0, payload)

    async def _hear_hello(self) -> None:
        either: list[asyncio.Future[Any]] = [self.greeted, self.lost]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self.lost.done():
            raise self.lost.result()
        self.hello = self.greeted.result()

    # Commands.

    async def run(
        self, request: ExecRequest, begun: Callable[[], None] = _nothing
    ) -> Exit | NotStarted:
        """Run one command to its end and collect its output (up to the request's caps).

        begun: called when it was sent, while the guest is at work.

        Beyond EXECS_AT_ONCE it waits, first come first served, until another has ended; that time
        does not count towards its timeout. So it does where the guest may have too few open files
        for as many, unless stdin is an iterable.
        A lost sandbox is an Exit with reason SANDBOX_LOST and what was received; a command that
        cannot be started is a NotStarted. Raises InvalidSpecError before anything is sent, and
        what an iterable of stdin raises, after a kill. Cancellation kills the command's family and
        waits until it is gone, at most 5 s.
        """
        while True:
            exec_ = await self._begin(request, collect=True)
            among = self._places.taken
            try:
                begun()
                if not isinstance(request.stdin, bytes):
                    return await execs.feed(exec_, request.stdin)
                ending = await exec_.ended
            except asyncio.CancelledError:
                await exec_.abandon()
                raise
            if isinstance(ending, Exit) or not self._must_wait(ending, among):
                return ending
            begun = _nothing

    async def spawn(self, request: ExecRequest) -> Exec | NotStarted:
        """Start one command and return it running, its output under flow control.

        It waits for its turn as `run` does. With STDIN_OPEN among the flags its stdin is `write`'s,
        else it is the request's bytes.
        Cancellation kills what was started and waits until it is gone, at most 5 s.
        """
        while True:
            exec_ = await self._begin(request, collect=False)
            among = self._places.taken
            exec_.started = self._loop.create_future()
            try:
                refused = await exec_.started
            except asyncio.CancelledError:
                await exec_.abandon()
                raise
            if refused is None:
                return exec_
            if not self._must_wait(refused, among):
                return refused

    async def _begin(self, request: ExecRequest, *, collect: bool) -> Exec:
        await self._places.take()
        try:
            if request.cgroups:
                await self._clear_for_descriptors()
            exec_ = execs.begin(self, request, collect=collect)
        except BaseException:
            self._places.leave()
            raise
        exec_.occupy(self._places.leave)
        return exec_

    async def _clear_for_descriptors(self) -> None:
        if not self.hello.features & Feature.DESCRIPTORS:
            raise UnsupportedError(
                "cgroup: the guest of this sandbox is on no socket, or is older", op="exec"
            )
        await self.clear()

    def _must_wait(self, refused: NotStarted, among: int) -> bool:
        """Whether the guest had not the descriptors for one more beside others: then it is tried
        again when it is its turn among fewer. among: how many were under way when it was begun;
        most of them may have ended since then."""
        too_many = refused.errno == errno.EMFILE and refused.stage in _BEFORE_THE_START
        if among == 1 or not too_many:
            return False
        self._places.narrow(among - 1)
        return True

    async def attach(self, exec_id: int, stdout_offset: int = 0, stderr_offset: int = 0) -> Exec:
        """Take up a held exec again, its output from these offsets or the oldest bytes still held.

        NotFoundError when the guest holds none of that id; StateError when it is attached already.
        Cancellation leaves the exec as it is.
        """
        exec_ = Exec(
            self,
            Output(None, collect=False, start=stdout_offset, jumps=True),
            Output(None, collect=False, start=stderr_offset, jumps=True),
        )
        exec_.started = self._loop.create_future()
        exec_.again = True
        self.adopt(exec_, exec_id)
        self.send(Ask.ATTACH, exec_id, struct.pack("<QQ", stdout_offset, stderr_offset))
        try:
            refused = await exec_.started
        except asyncio.CancelledError:
            self.drop(exec_)
            raise
        if refused is not None:
            failure = Failure(refused.errno, refused.stage, refused.detail)
            raise control.failed("attach", failure, f"held exec {exec_id}")
        return exec_

    async def forget(self, exec_id: int) -> None:
        """Release a held exec, killed first when it runs. NotFoundError when there is none."""
        question = Question("forget", Answer.DONE, nothing, _fail("forget", f"held exec {exec_id}"))
        self.adopt(question, exec_id, ANSWER_SECONDS)
        self.send(Ask.FORGET, exec_id)
        await question.future

    # TCP.

    async def listen(
        self, port: int, on_connection: OnConnection, *, address: str = LOOPBACK
    ) -> Listener:
        """`Forward.listen`: listen inside; `on_connection` gets a stream for each connection."""
        return await self.forward.listen(port, on_connection, address=address)

    async def connect_inside(self, port: int, *, address: str = LOOPBACK) -> Stream:
        """`Forward.connect_inside`: a stream to a port inside."""
        return await self.forward.connect_inside(port, address=address)

    # The sandbox as a whole.

    async def filter(self, code: bytes) -> None:
        """Have every command from now on start under this seccomp program; empty is none.

        code: an array of struct sock_filter. UnsupportedError when the guest has no filter.
        """
        if not self.hello.features & Feature.FILTER:
            raise UnsupportedError("filter: the guest of this sandbox installs none", op="filter")
        await self.begin_filter(code)

    def begin_filter(self, code: bytes) -> asyncio.Future[None]:
        """`filter` for a guest that has one, without waiting for the answer."""
        return self.begin("filter", Ask.FILTER, code, Answer.DONE, nothing)

    async def cpu_time(self, counter: int, limit: float, processors: int) -> None:
        """Have the guest kill all commands, and start no more, once `limit` seconds of processor
        time are used, of which it can use `processors` a second.

        counter: an open `cpu.stat` or `cpuacct.usage` of its cgroup, which stays the caller's.
        UnsupportedError when no descriptor reaches the guest.
        """
        if not self.hello.features & Feature.DESCRIPTORS:
            raise UnsupportedError("cpu_time: the guest of this sandbox is on no socket", op="open")
        await self.clear()
        failure = _fail("cpu_time", "limits.cpu_time")
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
        return self.begin("user", Ask.USER, payload, Answer.USER, control.unpack_user, name)

    async def list(self) -> Sequence[ListedExec]:
        """The execs that the guest knows: running, or ended and held."""
        return await self.ask("list", Ask.LIST, b"", Answer.LIST, control.unpack_list)

    async def kill_all(self) -> int:
        """Kill every process of every exec; how many there were."""
        return await self.ask("kill_all", Ask.KILL_ALL, b"", Answer.DONE, Payload.u32)

    async def lease(self, lease: float, lifetime: float | None = None) -> None:
        """Set the lease and the lifetime from now on, in seconds; None leaves the lifetime."""
        payload = _lease(lease, lifetime)
        await self.ask("lease", Ask.LEASE, payload, Answer.DONE, nothing)
        self._interval = lease / TICKS

    @property
    def lease_seconds(self) -> float:
        """The lease that keep-alive renews."""
        return self._interval * TICKS

    def set_interval(self, lease: float) -> None:
        """Keep alive for `lease` seconds from now on, without telling the guest."""
        self._interval = lease / TICKS

    async def ask(  # noqa: PLR0917 - a question has so many parts
        self,
        name: str,
        op: int,
        payload: bytes,
        expect: int,
        parse: Callable[[Payload], T],
        what: str = "",
    ) -> T:
        """Send one question and return its parsed answer; a FAIL is raised as `control` maps it."""
        return await self.begin(name, op, payload, expect, parse, what)

    def begin(  # noqa: PLR0917 - a question has so many parts
        self,
        name: str,
        op: int,
        payload: bytes,
        expect: int,
        parse: Callable[[Payload], T],
        what: str = "",
    ) -> asyncio.Future[T]:
        """`ask` without waiting for the answer."""
        question = Question(name, expect, parse, _fail(name, what or name))
        self.issue(question, op, payload, ANSWER_SECONDS)
        return question.future

    # The end.

    async def close(self) -> None:
        """Detach: end the session and leave the guest to its lease. Idempotent.

        Execs under way end as SANDBOX_LOST here; whether they go on inside is the guest's rule
        (attached: no; detached: held ones).
        """
        await self.disconnect()

    async def shutdown(self) -> None:
        """Have the guest kill everything and exit, then close. Idempotent; 3 s at most."""
        if not self.lost.done():
            self.send(Ask.SHUTDOWN, 0)
            await asyncio.wait([self.lost], timeout=_SHUTDOWN_SECONDS)
        await self.disconnect()


def _fail(op: str, what: str) -> Callable[[Failure], SandboxError]:
    return lambda failure: control.failed(op, failure, what)


def _lease(lease: float, lifetime: float | None) -> bytes:
    return struct.pack("<IQ", round(lease * 1000), round((lifetime or 0) * 1000))
