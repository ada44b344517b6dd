"""A request's `tasks` files reach the guest with its EXEC, whatever else is on its way."""

import asyncio
import errno
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ringfence.errors import StateError, UnsupportedError
from ringfence.guest.protocol import Feature
from ringfence.guest.request import ExecRequest, Exit, NotStarted
from ringfence.guest.session import Session

from .conftest import BINARY, USER, Place, mock_connect, real_place, session_with

ENV = {"PATH": "/usr/bin:/bin"}
STAGE_CGROUP = 6


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    """With a real guest on a socket."""
    if not BINARY.exists() or os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root, unshare and the guest's binary")
    directory = Path(tempfile.mkdtemp(prefix="ringfence-door-"))
    directory.chmod(0o711)  # noqa: ASYNC240 - quick, and before anything runs
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(directory / "host.sock"))
        (directory / "host.sock").chmod(0o666)
        door.listen()
        door.setblocking(False)
        process = await asyncio.create_subprocess_exec(
            *namespace, str(BINARY), "--socket", str(directory)
        )

        async def connect(factory) -> asyncio.Transport:
            loop = asyncio.get_running_loop()
            ours, _ = await asyncio.wait_for(loop.sock_accept(door), 30)
            return (await loop.create_connection(factory, sock=ours))[0]

        async with session_with(process, connect, directory) as started:
            yield started


def request(*args: str, **fields) -> ExecRequest:
    return ExecRequest(args, ENV, uid=USER.uid, gid=USER.gid, **fields)


async def test_a_guest_on_a_socket_says_that_it_takes_descriptors(session: Session) -> None:
    assert session.hello.features & Feature.DESCRIPTORS
    async with real_place() as place:
        assert not place.session.hello.features & Feature.DESCRIPTORS
    mock = await Session.start(await mock_connect())
    assert not mock.hello.features & Feature.DESCRIPTORS
    await mock.close()


async def test_the_command_is_moved_by_each_of_them(session: Session, tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as a, (tmp_path / "b").open("w") as b:
        ended = await session.run(request("true", cgroups=(a.fileno(), b.fileno())))
    assert isinstance(ended, Exit)
    assert ended.exit_code == 0
    assert [(tmp_path / name).read_text() for name in "ab"] == ["0", "0"]


async def test_they_do_not_overtake_what_was_sent_before(session: Session, tmp_path: Path) -> None:
    """While megabytes of another command's input wait in the client."""
    data = os.urandom(3 * 2**20)
    other = asyncio.create_task(session.run(request("cat", stdin=data, stdout_cap=len(data))))
    results = []
    for number in range(20):
        with (tmp_path / str(number)).open("w") as tasks:
            big = "x" * 100_000
            results.append(await session.run(request("echo", big, cgroups=(tasks.fileno(),))))
            await asyncio.sleep(0)
    assert [result.stdout_total for result in results] == [100_001] * 20
    assert [(tmp_path / str(number)).read_text() for number in range(20)] == ["0"] * 20
    assert (await other).stdout == data


async def test_many_at_once_each_have_their_own(session: Session, tmp_path: Path) -> None:
    files = [(tmp_path / str(number)).open("w") for number in range(50)]
    jobs = [
        session.run(request("sh", "-c", f"exit {number}", cgroups=(file.fileno(),)))
        for number, file in enumerate(files)
    ]
    ended = await asyncio.gather(*jobs)
    assert [one.exit_code for one in ended] == list(range(50))
    assert [(tmp_path / str(number)).read_text() for number in range(50)] == ["0"] * 50
    for file in files:
        file.close()


async def test_a_file_that_takes_nobody_is_a_command_that_was_not_started(
    session: Session, tmp_path: Path
) -> None:
    (tmp_path / "tasks").touch()
    with (tmp_path / "tasks").open() as tasks:
        ended = await session.run(request("touch", str(tmp_path / "x"), cgroups=(tasks.fileno(),)))
    assert isinstance(ended, NotStarted)
    assert (ended.errno, ended.stage) == (errno.EBADF, STAGE_CGROUP)
    assert not (tmp_path / "x").exists()


async def test_a_guest_that_takes_none_is_sent_none(place: Place, tmp_path: Path) -> None:
    with (tmp_path / "tasks").open("w") as tasks:
        with pytest.raises(UnsupportedError, match="cgroup"):
            await place.session.run(request("true", cgroups=(tasks.fileno(),)))
        with pytest.raises(UnsupportedError, match="cgroup"):
            await place.session.spawn(request("true", cgroups=(tasks.fileno(),)))
    assert isinstance(await place.session.run(request("true")), Exit)


async def test_a_session_that_has_ended_sends_none(session: Session, tmp_path: Path) -> None:
    await session.close()
    with (tmp_path / "tasks").open("w") as tasks, pytest.raises(StateError):
        await session.run(request("true", cgroups=(tasks.fileno(),)))
