"""Create, run, attach again, pause, delete: on the real Engine, on both transports."""

import asyncio
import os
import time
from dataclasses import replace

import pytest

from ringfence.backends.docker import DockerBackend
from ringfence.errors import NotFoundError, SandboxLostError
from ringfence.guest.protocol import ExecFlag
from ringfence.guest.request import ExecRequest
from ringfence.guest.session import Session
from ringfence.spec import State

from ...images import DEBIAN, SCRATCH
from .conftest import Make, assert_nothing_left, docker, greet

pytestmark = pytest.mark.docker


async def until(question: object, seconds: float = 30) -> None:
    """Wait until the answer of `question()` is true."""
    end = time.monotonic() + seconds
    while not await question():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.05)


async def test_a_command_runs_as_its_user_and_deleting_leaves_nothing(
    make: Make, transport: str
) -> None:
    place = await make()
    assert place.instance.record.transport == transport
    ended = await place.sh("id -u; echo out; echo err >&2; exit 3")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (3, b"1000\nout\n", b"err\n")
    assert await place.instance.state() is State.RUNNING
    await place.instance.delete()
    await place.instance.delete()
    assert await place.instance.state() is State.EXITED
    assert_nothing_left(place.instance.record.id)


async def test_much_output_comes_whole(make: Make, transport: str) -> None:
    place = await make()
    ended = await place.sh("head -c 8000000 /dev/zero | tr '\\0' x")
    assert ended.exit_code == 0
    assert len(ended.stdout) == 8_000_000
    assert set(ended.stdout) == {ord("x")}


async def test_much_input_goes_whole(make: Make, transport: str) -> None:
    place = await make()
    ended = await place.sh("wc -c", stdin=b"y" * 3_000_000)
    assert ended.stdout.split() == [b"3000000"]


async def test_an_empty_image_is_enough_for_the_guest(make: Make) -> None:
    place = await make(image=SCRATCH)
    assert await place.session.ping() >= 0


async def test_a_detached_sandbox_outlives_its_session_and_is_attached_again(
    make: Make, backend: DockerBackend, transport: str
) -> None:
    place = await make(detached=True, lifetime=120)
    await place.session.run(ExecRequest(["/bin/touch", "/tmp/mark"], uid=1000, gid=1000))
    for _ in range(2):
        await place.session.close()
        other = DockerBackend()
        try:
            place.instance = await other.attach(place.instance.record)
            place.session = await greet(place.instance)
            assert (await place.sh("test -e /tmp/mark")).exit_code == 0
        finally:
            await other.aclose()


async def test_the_marker_of_a_detached_stream_may_stay_and_no_command_sees_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGFENCE_DOCKER_TRANSPORT", "stream")
    place = await make(detached=True, lifetime=120)
    marker = place.instance.record.marker
    for _ in range(10):
        await place.session.close()
        place.session = await Session.start(
            place.instance.connect, marker=marker, next_marker=marker, detached=True, deadline=30
        )
        assert await place.session.ping() >= 0
    place.instance.record = replace(place.instance.record, marker=marker)
    started = (await place.sh("tr '\\0' ' ' < /proc/1/cmdline")).stdout.decode()
    assert "--marker " + "0" * 32 in started


async def test_an_attached_sandbox_ends_with_its_session(make: Make, transport: str) -> None:
    place = await make()
    await place.session.close()

    async def gone() -> bool:
        return await place.instance.state() is State.EXITED

    await until(gone)
    with pytest.raises(SandboxLostError):
        await greet(place.instance)


async def test_a_sandbox_removed_behind_our_back_is_lost(
    make: Make, backend: DockerBackend, transport: str
) -> None:
    place = await make()
    running = asyncio.create_task(place.sh("sleep 100"))
    await place.session.ping()
    await asyncio.to_thread(docker, "rm", "-f", place.instance.record.native)
    assert str((await asyncio.wait_for(running, 30)).reason) == "sandbox_lost"
    assert await place.instance.state() is State.EXITED
    with pytest.raises(SandboxLostError):
        await place.instance.evidence()
    with pytest.raises(SandboxLostError):
        await place.instance.connect(asyncio.Protocol)
    with pytest.raises(NotFoundError):
        await backend.attach(place.instance.record)
    await place.instance.delete()


async def test_a_killed_guest_is_an_exited_sandbox(make: Make) -> None:
    place = await make()
    os.kill(place.instance.pid, 9)
    await asyncio.wait_for(asyncio.shield(place.session.lost), 30)

    async def gone() -> bool:
        return await place.instance.state() is State.EXITED

    await until(gone)


async def test_pausing_stops_everything_until_it_is_resumed(make: Make) -> None:
    place = await make()
    await place.instance.pause()
    await place.instance.pause()
    assert await place.instance.state() is State.PAUSED
    asking = asyncio.create_task(place.session.ping())
    done, _ = await asyncio.wait([asking], timeout=0.3)
    assert not done
    await place.instance.resume()
    await asyncio.wait_for(asking, 30)
    assert await place.instance.state() is State.RUNNING


async def test_a_paused_sandbox_can_be_deleted(make: Make) -> None:
    place = await make()
    await place.instance.pause()
    await place.instance.delete()
    assert_nothing_left(place.instance.record.id)


async def test_the_engine_pauses_where_the_freezer_is_out_of_reach(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringfence.backends.docker.pausing.freezer_of", lambda pid: None)
    place = await make()
    for _ in range(2):
        await place.instance.pause()
        assert await place.instance.state() is State.PAUSED
        await place.instance.resume()
        assert await place.instance.state() is State.RUNNING
    assert await place.session.ping() >= 0


async def test_sandboxes_are_found_by_their_labels(make: Make, backend: DockerBackend) -> None:
    place = await make(labels={"suite": "found", "run": "x"})
    own = place.instance.record
    found = {one.id: one for one in await backend.found({"run": "x"})}
    assert found[own.id].native == own.native
    assert found[own.id].labels == {"suite": "found", "run": "x"}
    assert found[own.id].state is State.RUNNING
    assert own.id not in {one.id for one in await backend.found({"run": "y"})}
    assert own.id in {one.id for one in await backend.found({})}


DIALLER = """
import socket, time
while True:
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5); s.connect("/.ringfence/run/host.sock"); s.sendall(b"x" * 100); s.recv(1)
    except OSError: pass
    time.sleep(0.02)
"""


async def test_a_command_that_dials_the_host_s_socket_is_not_taken_for_the_guest(
    make: Make, backend: DockerBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGFENCE_DOCKER_TRANSPORT", "socket")
    place = await make(image=DEBIAN, detached=True, lifetime=120)
    request = ExecRequest(
        ["/usr/bin/python3", "-c", DIALLER],
        uid=1000,
        gid=1000,
        flags=ExecFlag.HOLD,
        env={"PATH": "/usr/bin"},
    )
    await place.session.spawn(request)
    for _ in range(2):
        await place.session.close()
        place.instance = await backend.attach(place.instance.record)
        place.session = await greet(place.instance)
        assert await place.session.ping() >= 0
        running = [one for one in await place.session.list() if one.running]
        assert len(running) == 1


LOCKER = """
import fcntl, os, time
fcntl.flock(os.open("/.ringfence/run", os.O_RDONLY), fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(600)
"""


async def test_a_command_that_locks_what_it_sees_of_the_door_does_not_lock_the_host_out(
    make: Make, backend: DockerBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with the uid of the host's directory can open it."""
    monkeypatch.setenv("RINGFENCE_DOCKER_TRANSPORT", "socket")
    place = await make(image=DEBIAN, detached=True, lifetime=120)
    args, uid = ["/usr/bin/python3", "-c", LOCKER], os.geteuid()
    locking = await place.session.spawn(
        ExecRequest(args, uid=uid, gid=uid, flags=ExecFlag.HOLD, env={})
    )
    assert await locking.read() == b"locked\n"
    await place.session.close()
    place.instance = await backend.attach(place.instance.record)
    place.session = await greet(place.instance)
    assert await place.session.ping() >= 0
