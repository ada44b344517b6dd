"""A session with the guest of one sandbox: the client side of docs/guest-protocol.md.

Written once, for every backend. It runs commands (`run`, `spawn`, `attach`), asks about the
sandbox (`user`, `list`, ...) and reaches its files (`files`).

Errors of all methods, besides their own: StateError after `close`, SandboxLostError when the
session ended or ends meanwhile, DeadlineExceededError when the guest leaves a short question
unanswered for a minute.
"""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from typing import Any, Self

from ringfence.errors import DeadlineExceededError, SandboxError, SandboxLostError, UnsupportedError
from ringfence.guest import exec_start
from ringfence.guest.asking import leased
from ringfence.guest.connection import TICKS
from ringfence.guest.execs import Exec
from ringfence.guest.files import Files
from ringfence.guest.forward import LOOPBACK, Forward, Listener, OnConnection
from ringfence.guest.holding import Holding
from ringfence.guest.places import Places
from ringfence.guest.protocol import (
    HEADER,
    MARKER_BYTES,
    VERSION,
    Answer,
    Ask,
    ExecFlag,
    Feature,
)
from ringfence.guest.request import ExecRequest, Exit, NotStarted
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


class Session(Holding):
    """One session; `start` makes it. At most one exists per sandbox at a time."""

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
        own = os.urandom(MARKER_BYTES)
        session._greeting = HEADER.pack(0, Answer.HELLO, 0)[4:] + own
        try:
            async with asyncio.timeout(deadline):
                await connect(lambda: session)
                with session.together():
                    session._say_hello(marker, own, next_marker, lifetime, detached)
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
        self, marker: bytes, own: bytes, next_marker: bytes, lifetime: float | None, detached: bool
    ) -> None:
        payload = (
            VERSION.to_bytes(4, "little")
            + own
            + (next_marker or bytes(MARKER_BYTES))
            + leased(self._interval * TICKS, lifetime)
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
                    return await exec_start.feed(exec_, request.stdin)
                ending = await exec_.ended
            except asyncio.CancelledError:
                await exec_.abandon()
                raise
            if isinstance(ending, Exit) or not self._must_wait(ending, among):
                return ending
            begun = _nothing

    def begin(self, request: ExecRequest) -> asyncio.Future[Exit | NotStarted]:
        """`run` for what `start` sends along with the greeting: nothing else is under way then, so
        it waits for no turn. How it ends, which is never an error."""
        return exec_start.begin(self, request, collect=True).ended

    async def spawn(self, request: ExecRequest) -> Exec | NotStarted:
        """Start one command and return it running, its output under flow control.

        It waits for its turn as `run` does. With STDIN_OPEN among the flags its stdin is `write`'s,
        else it is the request's bytes.
        Cancellation kills what was started and waits until it is gone, at most 5 s; it is not held.
        """
        while True:
            exec_ = await self._begin(request, collect=False)
            among = self._places.taken
            exec_.started = self._loop.create_future()
            try:
                refused = await exec_.started
            except asyncio.CancelledError:
                try:
                    await exec_.abandon()
                finally:
                    if request.flags & ExecFlag.HOLD:
                        self.send(Ask.FORGET, exec_.id)
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
            tell = not collect and bool(self.hello.features & Feature.TELL_START)
            exec_ = exec_start.begin(self, request, collect=collect, tell=tell)
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

    # TCP.

    async def listen(
        self, port: int, on_connection: OnConnection, *, address: str = LOOPBACK
    ) -> Listener:
        """`Forward.listen`: listen inside; `on_connection` gets a stream for each connection."""
        return await self.forward.listen(port, on_connection, address=address)

    async def connect_inside(self, port: int, *, address: str = LOOPBACK) -> Stream:
        """`Forward.connect_inside`: a stream to a port inside."""
        return await self.forward.connect_inside(port, address=address)

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
