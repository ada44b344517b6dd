"""The socket that a guest dials lets one process in and is gone afterwards."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.backends.docker.directory import make_directory
from ringfence.backends.docker.holding import take
from ringfence.backends.door import NAME, Door
from ringfence.errors import StateError

DIAL = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / ("long" * 30) / "sandbox"
    make_directory(path)
    return path


@pytest.fixture
def opens(directory: Path, state_directory: Path) -> Callable[[], Door]:
    return lambda: Door(directory, take(directory.name))


def dial(directory: Path) -> socket.socket:
    holder = os.open(directory, os.O_RDONLY)
    try:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"/proc/self/fd/{holder}/{NAME}")
        return connection
    finally:
        os.close(holder)


async def test_the_process_that_is_expected_comes_in(
    opens: Callable[[], Door], directory: Path
) -> None:
    with opens() as door:
        ours = dial(directory)
        theirs = await asyncio.wait_for(door.accept(os.getpid()), 20)
        theirs.close()
        ours.close()


async def test_another_process_is_dropped_and_waiting_goes_on(
    opens: Callable[[], Door], directory: Path
) -> None:
    with opens() as door:
        stranger = await asyncio.create_subprocess_exec(
            sys.executable, "-c", DIAL, NAME, cwd=directory
        )
        accepting = asyncio.create_task(door.accept(os.getpid()))
        assert await asyncio.wait_for(stranger.wait(), 20) == 0
        assert not accepting.done()
        ours = dial(directory)
        (await asyncio.wait_for(accepting, 20)).close()
        ours.close()


async def test_without_waiting_it_is_the_same(opens: Callable[[], Door], directory: Path) -> None:
    """Nobody is None; of those who dialled only the expected one is had, the others are dropped."""
    door = opens()
    assert door.accepted(os.getpid()) is None
    first, second = dial(directory), dial(directory)
    named = iter((None, os.getpid()))
    theirs = door.accepted(lambda: next(named))
    assert theirs is not None
    assert first.recv(1) == b""
    theirs.send(b"x")
    assert second.recv(1) == b"x"
    for one in (first, second, theirs):
        one.close()
    door.close()
    with pytest.raises(StateError, match="closed"):
        door.accepted(os.getpid())


async def test_nothing_is_left_when_it_is_closed(
    opens: Callable[[], Door], directory: Path
) -> None:
    door = opens()
    assert (directory / NAME).exists()
    door.close()
    door.close()
    assert not (directory / NAME).exists()


async def test_a_second_door_of_the_same_sandbox_is_refused(
    opens: Callable[[], Door], directory: Path
) -> None:
    with opens():
        with pytest.raises(StateError, match="one at a time"):
            opens()
        assert (directory / NAME).exists()
    opens().close()


async def test_a_socket_that_a_dead_host_left_is_replaced(
    opens: Callable[[], Door], directory: Path
) -> None:
    (directory / NAME).touch()
    with opens():
        dial(directory).close()
