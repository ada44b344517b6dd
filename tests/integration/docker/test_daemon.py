"""On a daemon of the tests' own: sizes that hold, and what becomes of sandboxes when it ends."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ringfence.backends.docker import DockerBackend, DockerInstance
from ringfence.errors import BackendUnavailableError, SandboxError
from ringfence.guest.request import ExecRequest, Exit
from ringfence.guest.session import Session
from ringfence.spec import SandboxSpec, State

from ...daemon import SECONDS, Daemon, private_daemon
from .conftest import greet, new_id, spec_of

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with private_daemon() as started:
        yield started


@pytest.fixture
async def backend(daemon: Daemon, state_directory: Path) -> AsyncIterator[DockerBackend]:
    backend = DockerBackend(daemon.url)
    yield backend
    await backend.aclose()


async def start(backend: DockerBackend, spec: SandboxSpec) -> tuple[DockerInstance, Session]:
    instance = await backend.create(spec, new_id(), await backend.facts(spec))
    return instance, await greet(instance)


async def nothing_left(backend: DockerBackend) -> None:
    end = time.monotonic() + SECONDS
    while await backend.found({}):
        assert time.monotonic() < end, "a container is left"
        await asyncio.sleep(0.1)


async def test_the_size_of_a_writable_root_holds(backend: DockerBackend) -> None:
    assert "disk" in (await backend.features()).limits
    spec = spec_of(
        limits={"disk": "32m", "memory": "128m"},
        security={"read_only_root": False},
        profile="permissive",
    )
    instance, session = await start(backend, spec)
    script = "head -c 50000000 /dev/zero > /big; wc -c < /big; rm /big; echo ok > /small"
    ended = await session.run(
        ExecRequest(["/bin/sh", "-c", f"{script}; cat /small"], env={"PATH": "/bin"})
    )
    assert isinstance(ended, Exit)
    size, small = ended.stdout.split()
    assert 0 < int(size) <= 32 * 2**20
    assert small == b"ok"
    await instance.delete()
    await session.close()
    await nothing_left(backend)


async def test_a_daemon_that_is_started_again_says_what_became_of_a_sandbox(
    daemon: Daemon, backend: DockerBackend
) -> None:
    instance, session = await start(backend, spec_of())
    detached, other = await start(backend, spec_of(detached=True, lifetime=600))
    await asyncio.to_thread(daemon.end)
    for call in (instance.state(), instance.evidence(), backend.found({})):
        with pytest.raises(BackendUnavailableError):
            await call
    await asyncio.to_thread(daemon.start)
    for one, held in ((instance, session), (detached, other)):
        state = await one.state()
        assert state in (State.RUNNING, State.EXITED)
        if state is State.RUNNING:
            with contextlib.suppress(SandboxError):
                await held.ping()
        await one.delete()
        await held.close()
        assert await one.state() is State.EXITED
    await nothing_left(backend)
