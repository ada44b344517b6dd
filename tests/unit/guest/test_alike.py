"""The mock's files and the real guest's give the same answers to the same questions."""

import contextlib
import itertools
import stat
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.errors import FileError
from ringfence.guest.protocol import Stat, WriteFlag
from ringfence.guest.session import Session

from .conftest import USER, mock_connect, real_place

Step = tuple[str, tuple]
EXAMPLES = itertools.count()

NAMES = st.sampled_from(["a", "b", "a/b", "a/c", "b/c", "a/b/c", "link", "a/link"])
TARGETS = st.sampled_from(["a", "./b", "/", "nowhere", "link", "."])
MODES = st.sampled_from([0o755, 0o700, 0o644, 0o600, 0o555, 0o444, 0o111])
FLAGS = st.sampled_from(
    [
        WriteFlag.CREATE,
        WriteFlag.CREATE | WriteFlag.TRUNCATE,
        WriteFlag.CREATE | WriteFlag.APPEND,
        WriteFlag.CREATE | WriteFlag.EXCLUSIVE,
        WriteFlag.CREATE | WriteFlag.ATOMIC,
        WriteFlag.CREATE | WriteFlag.ATOMIC | WriteFlag.EXCLUSIVE,
        WriteFlag.CREATE | WriteFlag.PARENTS,
        WriteFlag.ATOMIC,
        0,
    ]
)
STEPS = st.one_of(
    st.tuples(st.just("write"), st.tuples(NAMES, FLAGS, MODES, st.integers(0, 3))),
    st.tuples(st.just("mkdir"), st.tuples(NAMES, MODES, st.booleans())),
    st.tuples(st.just("remove"), st.tuples(NAMES, st.just(False))),
    st.tuples(st.just("rename"), st.tuples(NAMES, NAMES, st.booleans())),
    st.tuples(st.just("chmod"), st.tuples(NAMES, MODES)),
    st.tuples(st.just("copy"), st.tuples(NAMES, NAMES, st.just(False))),
    st.tuples(st.just("symlink"), st.tuples(TARGETS, NAMES)),
    st.tuples(st.just("readlink"), st.tuples(NAMES)),
    st.tuples(st.just("stat"), st.tuples(NAMES, st.booleans())),
    st.tuples(st.just("read"), st.tuples(NAMES)),
)


def shown(found: Stat) -> tuple:
    """What does not depend on the file system."""
    regular = stat.S_ISREG(found.mode)
    return found.mode, found.uid, found.gid, found.size if regular else None


class Side:
    """One session and its directory."""

    def __init__(self, session: Session, top: str) -> None:
        self.files = session.files
        self.top = top

    def at(self, name: str) -> str:
        return f"{self.top}/{name}"

    async def take(self, step: Step) -> object:
        """The result of a step, or the errno of its error."""
        name, arguments = step
        try:
            return await getattr(self, name)(*arguments)
        except FileError as error:
            return error.context["errno"]

    async def write(self, name: str, flags: int, mode: int, offset: int) -> object:
        data = f"{name}{flags}".encode()
        return await self.files.write(
            self.at(name), USER, data, flags=flags, mode=mode, offset=offset
        )

    async def mkdir(self, name: str, mode: int, parents: bool) -> object:
        return await self.files.mkdir(self.at(name), USER, mode=mode, parents=parents)

    async def remove(self, name: str, recursive: bool) -> object:
        return await self.files.remove(self.at(name), USER, recursive=recursive)

    async def rename(self, name: str, to: str, replace: bool) -> object:
        return await self.files.rename(self.at(name), self.at(to), USER, replace=replace)

    async def chmod(self, name: str, mode: int) -> object:
        return await self.files.chmod(self.at(name), USER, mode)

    async def copy(self, name: str, to: str, recursive: bool) -> object:
        return await self.files.copy(self.at(name), self.at(to), USER, recursive=recursive)

    async def symlink(self, target: str, name: str) -> object:
        return await self.files.symlink(target, self.at(name), USER)

    async def readlink(self, name: str) -> object:
        return await self.files.readlink(self.at(name), USER)

    async def stat(self, name: str, follow: bool) -> object:
        return shown(await self.files.stat(self.at(name), USER, follow=follow))

    async def read(self, name: str) -> object:
        return await self.files.read(self.at(name), USER)

    async def everything(self) -> dict[bytes, tuple]:
        found = {}
        async for entries in self.files.walk(self.top, USER):
            found |= {name: shown(stat) for name, stat in entries}
        return found


@pytest.fixture
async def sides() -> AsyncIterator[tuple[Session, Session, str]]:
    async with contextlib.AsyncExitStack() as stack:
        real = await stack.enter_async_context(real_place())
        mock = await Session.start(await mock_connect())
        stack.push_async_callback(mock.close)
        yield mock, real.session, real.directory


@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, max_size=12))
async def test_the_same_steps_have_the_same_results(
    sides: tuple[Session, Session, str], steps: list[Step]
) -> None:
    number = next(EXAMPLES)
    mock = Side(sides[0], f"/workspace/{number}")
    real = Side(sides[1], f"{sides[2]}/{number}")
    for side in (mock, real):
        await side.files.mkdir(side.top, USER, parents=True)
    for step in steps:
        assert await real.take(step) == await mock.take(step), step
        assert await real.everything() == await mock.everything(), step
