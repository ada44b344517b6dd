"""Whatever a guest answers, what was asked ends: with a result or an error of ours, and nothing is left."""

import asyncio
import gc
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from ringfence.errors import GuestError, SandboxError
from ringfence.guest.execs import Exec
from ringfence.guest.protocol import (
    EXIT,
    HELLO_TAIL,
    STAT,
    TOLD,
    U64,
    VERSION,
    Answer,
    Ask,
    Cred,
    ExecFlag,
    Feature,
    Told,
    string,
)
from ringfence.guest.request import ExecRequest
from ringfence.guest.session import Session
from ringfence.guest.tcp import Stream

from .puppets import PID, Puppet, exit_payload

WHO = Cred(1000, 1000)
FEATURES = 0x3FF | Feature.SPACE
WAIT_SECONDS = 20.0

OPS = sorted(value for name, value in vars(Answer).items() if not name.startswith("_"))
UNKNOWN_OPS = [0x00, 0x10, 0x55, 0x73, 0xFF]
PAYLOADS = [
    b"",
    b"\xff" * 3,
    b"\xff" * 200,
    U64.pack(0) + b"data",
    U64.pack(2**64 - 1) + b"data",
    struct.pack("<I", 2**32 - 1) + b"x" * 60,
    struct.pack("<IB", 2**31, 255) + string(b"\xff\xfe\0"),
    exit_payload(0x137F),
    EXIT.pack(-1, 77, 255, *[2**32 - 1] * 2, *[2**64 - 1] * 13),
    U64.pack(2**63) + STAT.pack(*[2**31] * 8),
    TOLD.pack(7, Told.STDIN_OPEN, 2**64 - 1, 3),
    TOLD.pack(7, 255, 3, 2**64 - 1),
]
BEFORE: list[list[tuple[int, bytes]]] = [
    [],
    [(Answer.STARTED, PID)],
    [(Answer.STARTED, TOLD.pack(7, Told.STDIN_OPEN, 9, 3))],
    [(Answer.STARTED, PID), (Answer.OUT, U64.pack(0) + b"hi")],
    [(Answer.SIZE, U64.pack(2**24)), (Answer.DATA, U64.pack(0) + b"hi")],
]
"""What came well before the frame that makes no sense."""


async def _echo(stream: Stream) -> None:
    while await stream.read():
        pass


async def _spawn(session: Session) -> None:
    flags = ExecFlag.SEARCH_PATH | ExecFlag.STDIN_OPEN
    process = await session.spawn(ExecRequest(["x"], flags=flags))
    if isinstance(process, Exec):
        await asyncio.gather(process.read(1), process.read(2), process.wait())


async def _read(session: Session) -> None:
    async with session.files.open_read("/f", WHO) as reader:
        async for _ in reader:
            pass


async def _write(session: Session) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 100_000

    await session.files.write("/f", WHO, chunks())


async def _walk(session: Session) -> None:
    async for _ in session.files.walk("/d", WHO):
        pass


async def _watch(session: Session) -> None:
    async for _ in await session.files.watch("/d", WHO):
        pass


async def _listen(session: Session) -> None:
    listener = await session.listen(0, _echo)
    await session.lost
    await listener.close()


async def _connect(session: Session) -> None:
    stream = await session.connect_inside(80)
    stream.write(b"x" * 100_000)
    await _echo(stream)


QUESTIONS: dict[str, Callable[[Session], Awaitable[Any]]] = {
    "run": lambda session: session.run(ExecRequest(["x"], stdin=b"x" * 100_000)),
    "run up to a cap": lambda session: session.run(ExecRequest(["x"], stdout_cap=3, stderr_cap=3)),
    "spawn": _spawn,
    "attach": lambda session: session.attach(9, 5, 5),
    "forget": lambda session: session.forget(9),
    "user": lambda session: session.user("x"),
    "list": lambda session: session.list(),
    "spaces": lambda session: session.spaces(["/tmp", "/run"]),
    "kill_all": lambda session: session.kill_all(),
    "lease": lambda session: session.lease(10),
    "stat": lambda session: session.files.stat("/x", WHO),
    "list_dir": lambda session: session.files.list_dir("/x", WHO),
    "read whole": lambda session: session.files.read("/x", WHO),
    "read up to a limit": lambda session: session.files.read("/x", WHO, max_bytes=3),
    "read": _read,
    "write": _write,
    "remove": lambda session: session.files.remove("/x", WHO, recursive=True),
    "readlink": lambda session: session.files.readlink("/x", WHO),
    "walk": _walk,
    "watch": _watch,
    "listen": _listen,
    "connect": _connect,
}


class Liar(Puppet):
    """Answers the first question with frames of that id, then hangs up."""

    def __init__(self, frames: list[tuple[int, bytes]]) -> None:
        super().__init__()
        self.lies = frames

    def _receive(self, op: int, operation_id: int, payload: bytes) -> None:
        if op == Ask.HELLO:
            hello = payload[4:20] + HELLO_TAIL.pack(VERSION, FEATURES, 65501, 1, 0) + string(b"")
            self.send(Answer.HELLO, 0, hello)
        elif self.lies:
            for answer, data in self.lies:
                self.send(answer, operation_id, data)
            self.lies = []
            asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, self._bye)

    def _bye(self) -> None:
        if self.transport is not None:
            self.transport.close()


async def _ask(
    question: Callable[[Session], Awaitable[Any]], lies: list[tuple[int, bytes]]
) -> bool:
    """Whether the session was given up for what the guest said."""
    guest = Liar(lies)
    session = await Session.start(guest.connect)
    asked = asyncio.ensure_future(question(session))
    await asyncio.wait([asked], timeout=WAIT_SECONDS)
    ended, lost = asked.done(), session.lost.done() and session.lost.result()
    await session.close()
    guest.hang_up()
    assert ended, (lies, "it waits for ever")
    error = asked.exception()
    assert error is None or isinstance(error, SandboxError | OSError), (lies, error)
    return isinstance(lost, GuestError)


@pytest.mark.parametrize("name", QUESTIONS)
async def test_every_answer_ends_what_was_asked(name: str) -> None:
    """Each kind of frame with payloads that are none of its own, first and in the middle."""
    unhandled: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    noticed = 0
    for number, op in enumerate([*OPS, *UNKNOWN_OPS]):
        for place, payload in enumerate(PAYLOADS):
            before = BEFORE[(number + place) % len(BEFORE)]
            noticed += await _ask(QUESTIONS[name], [*before, (op, payload)])
    gc.collect()
    await asyncio.sleep(0)
    assert unhandled == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert noticed > (len(OPS) + len(UNKNOWN_OPS)) * len(PAYLOADS) / 2
