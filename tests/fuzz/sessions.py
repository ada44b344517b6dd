"""A user who cancels: random operations of one session, many at a time, each cancelled at some moment.

Nothing that a user does may lose the session, leave an operation or a place taken, or a process
inside. The same seed makes the same choices.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable

from ringfence.errors import FileError, NotFoundError, StateError
from ringfence.guest.execs import Exec
from ringfence.guest.protocol import STDERR, STDOUT, ExecFlag, WriteFlag
from ringfence.guest.request import ExecRequest
from ringfence.guest.tcp import Stream
from tests.unit.guest.conftest import USER, Place

AT_ONCE = 8
LONGEST_SECONDS = 0.03
SCRIPTS = (
    "true",
    "exit 3",
    "echo out; echo err >&2",
    "cat",
    "cat; exit 4",
    "sleep 60",
    "trap '' TERM; sleep 60",
)
REAL_SCRIPTS = (
    "yes | head -c 3000000",
    "head -c 2000000 /dev/zero >&2",
    "exec cat /dev/zero",
    "sleep 60 & setsid sleep 60 & echo left",
    "exec <&-; sleep 0.01",
)


class User:
    """What one does in a place, and what is left of it."""

    def __init__(self, place: Place, seed: int) -> None:
        self.random = random.Random(seed)
        self.session = place.session
        self.directory = place.directory
        self.scripts = SCRIPTS + (REAL_SCRIPTS if place.real else ())
        self.held: list[int] = []
        self.acts: list[Callable[[], Awaitable[object]]] = [
            self.run,
            self.spawn,
            self.hold,
            self.attach,
            self.attach,
            self.forget,
            self.write,
            self.read,
            self.tree,
            self.watch,
            self.session.list,
            self.session.ping,
        ]
        if place.real:
            self.acts.append(self.forward)

    def request(self, flags: int = 0) -> ExecRequest:
        pick = self.random.choice
        return ExecRequest(
            ["sh", "-c", pick(self.scripts)],
            env={"PATH": "/usr/bin:/bin"},
            uid=USER.uid,
            gid=USER.gid,
            timeout=pick((None, 0.001, 0.02)),
            grace=pick((0, 0.01)),
            stdout_cap=pick((None, 0, 1000)) if not flags else None,
            stdin=pick((b"", b"text", b"x" * 1_000_000)) if not flags else b"",
            flags=flags | ExecFlag.SEARCH_PATH | pick((0, ExecFlag.KILL_ON_CAP)),
        )

    async def chunks(self) -> AsyncIterator[bytes]:
        for _ in range(self.random.randrange(30)):
            yield bytes(self.random.randrange(1, 100_000))
            await asyncio.sleep(0)

    async def run(self) -> None:
        await self.session.run(self.request())

    async def use(self, exec_: Exec) -> None:
        for _ in range(self.random.randrange(6)):
            act = self.random.randrange(8)
            if act == 0:
                exec_.signal(self.random.choice((15, 18, 19, 2)), group=self.random.random() < 0.5)
            elif act == 1:
                exec_.discard()
            elif act == 2:
                exec_.kill()
            elif act == 3:
                exec_.write_eof()
            elif act in (4, 5):
                await exec_.read(self.random.choice((STDOUT, STDERR)), 70_000)
            else:
                await exec_.write(bytes(self.random.choice((1, 500_000))))

    async def spawn(self) -> None:
        exec_ = await self.session.spawn(self.request(ExecFlag.STDIN_OPEN))
        if isinstance(exec_, Exec):
            try:
                await self.use(exec_)
            finally:
                await exec_.abandon()

    async def hold(self) -> None:
        exec_ = await self.session.spawn(self.request(ExecFlag.STDIN_OPEN | ExecFlag.HOLD))
        if isinstance(exec_, Exec):
            self.held.append(exec_.id)
            try:
                await self.use(exec_)
            finally:
                self.let_go(exec_)

    def let_go(self, exec_: Exec) -> None:
        exec_.discard()
        if self.random.random() < 0.7:
            self.session.drop(exec_)

    async def attach(self) -> None:
        if not self.held:
            return
        offsets = [self.random.choice((0, 0, 1, 10**6, 10**9)) for _ in range(2)]
        exec_ = await self.session.attach(self.random.choice(self.held), *offsets)
        try:
            await self.use(exec_)
        finally:
            self.let_go(exec_)

    async def forget(self) -> None:
        await self.session.forget(self.random.choice([*self.held[-5:], 12345]))

    def path(self) -> str:
        return f"{self.directory}/{self.random.choice('abc')}"

    async def write(self) -> None:
        data = self.random.choice((b"small", bytes(3_000_000), self.chunks()))
        flags = WriteFlag.CREATE | self.random.choice((0, WriteFlag.ATOMIC, WriteFlag.TRUNCATE))
        await self.session.files.write(self.path(), USER, data, flags=flags)

    async def read(self) -> None:
        if self.random.random() < 0.5:
            await self.session.files.read(self.path(), USER)
            return
        async with self.session.files.open_read(self.path(), USER) as reader:
            while await reader.read(self.random.randrange(1, 100_000)):
                pass

    async def tree(self) -> None:
        files, act = self.session.files, self.random.randrange(4)
        if act == 0:
            await files.mkdir(f"{self.directory}/d/e/f", USER, parents=True)
            await files.remove(f"{self.directory}/d", USER, recursive=True)
        elif act == 1:
            await files.copy(self.path(), self.path(), USER)
        else:
            walk = files.walk(self.directory, USER)
            async for _ in walk:
                if act == 2:
                    break
            await walk.aclose()

    async def watch(self) -> None:
        watch = await self.session.files.watch(self.directory, USER, recursive=True)
        try:
            async for _ in watch:
                if self.random.random() < 0.3:
                    break
        finally:
            await watch.aclose()

    async def serve(self, stream: Stream) -> None:
        while chunk := await stream.read(self.random.randrange(1, 200_000)):
            stream.write(chunk)
            await stream.drain()
            if self.random.random() < 0.1:
                stream.reset()

    async def forward(self) -> None:
        listener = await self.session.listen(0, self.serve)
        try:
            async with await self.session.connect_inside(listener.port) as stream:
                for _ in range(self.random.randrange(8)):
                    stream.write(bytes(self.random.choice((1, 300_000))))
                    await stream.drain()
                    if self.random.random() < 0.5:
                        await stream.read()
                stream.write_eof()
                while await stream.read():
                    pass
        finally:
            await asyncio.shield(listener.close())

    async def one(self) -> None:
        """Something, cancelled at some moment, perhaps twice."""
        task = asyncio.ensure_future(self.random.choice(self.acts)())
        if self.random.random() < 0.4:
            for _ in range(self.random.randrange(20)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(self.random.random() * LONGEST_SECONDS)
        task.cancel()
        if self.random.random() < 0.2:
            await asyncio.sleep(0)
            task.cancel()
        with contextlib.suppress(
            asyncio.CancelledError, FileError, NotFoundError, StateError, OSError
        ):
            await task

    async def settle(self) -> None:
        """Release what is held: nothing may be left."""
        session = self.session
        assert not session.lost.done(), session.lost.result()
        for operation in session.operations():
            if isinstance(operation, Exec):
                await operation.abandon()
        await session.kill_all()
        for row in await session.list():
            await session.forget(row.id)
        async with asyncio.timeout(90):
            while session.operations():
                await asyncio.sleep(0.05)
        assert session._places.taken == 0
        assert await session.list() == []


async def act(place: Place, seed: int, steps: int) -> User:
    """So many operations, AT_ONCE at a time, and what is to be true after them."""
    user = User(place, seed)

    async def some() -> None:
        for _ in range(steps // AT_ONCE):
            await user.one()

    await asyncio.gather(*[some() for _ in range(AT_ONCE)])
    await user.settle()
    return user
