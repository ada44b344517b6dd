"""TCP between the host and the loopback inside, over the session.

A *listener* listens inside; what connects to it there becomes a *stream* here. `connect_inside`
is the other way round. A stream has the manners of asyncio's: `read`, `write` and `drain`,
`write_eof`, `close`. What comes over it is the sandbox's, and hostile.
"""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from ringfence.errors import (
    AlreadyExistsError,
    InvalidSpecError,
    PolicyDeniedError,
    ResourceExhaustedError,
    SandboxError,
    UnsupportedError,
)
from ringfence.guest import control
from ringfence.guest.given import text
from ringfence.guest.operation import ANSWER_SECONDS, Operation, Question, lost, nothing, overdue
from ringfence.guest.payload import Payload, malformed
from ringfence.guest.protocol import U16, U32, Answer, Ask, Failure, Feature, string
from ringfence.guest.tcp import Stream

if TYPE_CHECKING:
    from ringfence.guest.session import Session

LOOPBACK: Final = "127.0.0.1"
STREAMS_MOST = 256
"""Connections of one sandbox at a time, twice what a guest takes: with their windows, all that this
process keeps for them."""

OnConnection = Callable[[Stream], Awaitable[None]]
"""Serves one stream; the stream is closed when it returns and reset when it raises."""


class Listener(Operation):
    """A port inside that is listened on. address, port: as bound, inside."""

    __slots__ = (
        "_answered",
        "_forward",
        "_on_connection",
        "_opened",
        "address",
        "error",
        "port",
        "wanted",
    )

    def __init__(
        self, forward: "Forward", address: str, port: int, on_connection: OnConnection
    ) -> None:
        super().__init__()
        self._forward = forward
        self._on_connection = on_connection
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answered = False
        self.address = address
        self.port = 0
        self.wanted = port
        self.error: SandboxError | None = None

    def receive(self, op: int, payload: memoryview) -> bool:
        """Take the one answer."""
        fields = Payload(payload)
        if self._answered or op not in (Answer.DONE, Answer.FAIL):
            raise malformed(f"frame 0x{op:02x} for a listener")
        self._answered = True
        if op == Answer.FAIL:
            self._refuse(_listen_failed(fields.failure(), f"{self.address} port {self.wanted}"))
            return True
        (self.port,) = fields.take(U16)
        fields.end()
        self.deadline = float("inf")
        if not self._opened.done():  # nobody may wait any more
            self._opened.set_result(None)
        return False

    def _refuse(self, error: SandboxError) -> None:
        self.error = error
        if not self._opened.done():
            self._opened.set_exception(error)

    def lose(self, error: SandboxError) -> None:
        """The session ended."""
        self._refuse(lost(error, "listen"))

    def expire(self, now: float) -> SandboxError | None:  # noqa: ARG002 - the interface's
        """No answer came."""
        self._refuse(overdue("listen"))
        return None

    async def opened(self) -> None:
        """Until it listens. The error of `Forward.listen`."""
        await self._opened

    def serve(self, stream: Stream) -> None:
        """Start the handler of a new stream."""
        self._forward.start(self._on_connection, stream)

    async def close(self) -> None:
        """Stop listening; streams go on. Idempotent."""
        if self.error is None and self._answered:
            await self._forward.close(self)


class Forward:
    """The listeners and streams of one session."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._listeners: dict[int, Listener] = {}
        self._streams = 0
        session.on_accept = self._accept

    async def listen(
        self, port: int, on_connection: OnConnection, *, address: str = LOOPBACK
    ) -> Listener:
        """Listen inside on `port` of a loopback address; 0 is any, the listener knows which.

        AlreadyExistsError when the port is taken, PolicyDeniedError when it may not be bound there
        (below 1024 on some backends), ResourceExhaustedError when the guest has as many as it can
        have, UnsupportedError when it has no forward. Cancellation gives the port back. A detached
        sandbox's guest keeps a port that was named, until a session listens there and closes it.
        """
        self._check("listen")
        target = _target(address, port)
        listener = Listener(self, address, port, on_connection)
        listener_id = self._session.register(listener, ANSWER_SECONDS)
        self._listeners[listener_id] = listener
        self._session.send(Ask.LISTEN, listener_id, target)
        try:
            await listener.opened()
        except SandboxError:
            self._listeners.pop(listener_id, None)
            raise
        except asyncio.CancelledError:
            self._give_back(listener)
            raise
        return listener

    def _give_back(self, listener: Listener) -> None:
        """Stop listening where nobody waits for that."""
        session = self._session
        if self._listeners.pop(listener.id, None) is not None and not session.lost.done():
            session.drop(listener)
            session.drop(self._ask_to_close(listener))

    async def connect_inside(self, port: int, *, address: str = LOOPBACK) -> Stream:
        """Connect to a port of a loopback address inside.

        ConnectionRefusedError and other OSErrors as connect(2) has them; UnsupportedError when the
        guest has no forward. Cancellation resets what came about.
        """
        self._check("connect")
        target = _target(address, port)
        stream = Stream(self._session, connects=True)
        self._session.issue(stream, Ask.CONNECT, target, ANSWER_SECONDS)
        try:
            await stream.opened()
        except asyncio.CancelledError:
            stream.reset()
            raise
        return stream

    def _check(self, op: str) -> None:
        if not self._session.hello.features & Feature.FORWARD:
            raise UnsupportedError(f"{op}: the guest of this sandbox forwards no ports", op=op)

    async def close(self, listener: Listener) -> None:
        """Stop listening. Idempotent."""
        if self._listeners.pop(listener.id, None) is None:
            return
        question = self._ask_to_close(listener)
        try:
            await question.future
        finally:
            self._session.drop(listener)

    def _ask_to_close(self, listener: Listener) -> Question[None]:
        fail = partial(_close_failed, str(listener.port))
        question = Question("close_listener", Answer.DONE, nothing, fail)
        payload = U32.pack(listener.id)
        self._session.issue(question, Ask.CLOSE_LISTENER, payload, ANSWER_SECONDS)
        return question

    def _accept(self, stream_id: int, payload: memoryview) -> None:
        fields = Payload(payload)
        listener_id = fields.u32()
        (peer_port,) = fields.take(U16)
        fields.end()
        listener = self._listeners.get(listener_id)
        if listener is None or self._streams >= STREAMS_MOST:
            self._session.send(Ask.RESET, stream_id)
            return
        stream = Stream(self._session, peer_port=peer_port)
        self._session.adopt(stream, stream_id)
        listener.serve(stream)

    def start(self, on_connection: OnConnection, stream: Stream) -> None:
        """Run a handler as a task that ends with the session at the latest."""
        self._streams += 1
        task = asyncio.get_running_loop().create_task(_serve(on_connection, stream))
        task.add_done_callback(self._served)
        self._session.keep(task)

    def _served(self, _: "asyncio.Task[None]") -> None:
        self._streams -= 1


def _target(address: str, port: int) -> bytes:
    if not 0 <= port < 2**16:
        raise InvalidSpecError(
            f"port: {port} is none: use 0 to 65535", op="forward", context={"fields": ["port"]}
        )
    return string(text(address, "address")) + U16.pack(port)


async def _serve(on_connection: OnConnection, stream: Stream) -> None:
    try:
        await on_connection(stream)
    except (OSError, EOFError, SandboxError):
        stream.reset()
    except BaseException:
        stream.reset()
        raise
    else:
        stream.close()
        await stream.wait_closed()


def _listen_failed(failure: Failure, what: str) -> SandboxError:
    context = {"errno": failure.errno, "what": what}
    if failure.errno == errno.EADDRINUSE:
        message = f"listen: {what} inside is taken: choose another, or 0 for any"
        return AlreadyExistsError(message, op="listen", context=context)
    if failure.errno == errno.EACCES:
        message = f"listen: {what} may not be bound in this sandbox: use a port from 1024 up"
        return PolicyDeniedError(message, op="listen", context=context)
    if failure.errno == errno.EINVAL:
        message = f"listen: {what} is no loopback address in numbers: use 127.0.0.1 or ::1"
        return InvalidSpecError(message, op="listen", context=context)
    if failure.errno == errno.EAGAIN:
        message = f"listen: {what}: the guest listens on as many ports as it can: close some"
        return ResourceExhaustedError(message, op="listen", context=context)
    return control.failed("listen", failure, what)


def _close_failed(port: str, failure: Failure) -> SandboxError:
    return control.failed("close_listener", failure, f"listener on port {port}")
