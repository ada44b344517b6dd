"""Sandboxes on the real Engine, without the layer above: a backend, an instance, a session."""

import os
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ringfence.backends import state
from ringfence.backends.base import Bind
from ringfence.backends.docker import DockerBackend, DockerInstance
from ringfence.guest.request import ExecRequest, Exit
from ringfence.guest.session import Session
from ringfence.spec import SandboxSpec

from ...conftest import require_docker
from ...images import BUSYBOX

USER = 1000
LIMITS = {"memory": "256m", "pids": 64, "cpus": 1, "tmp": "16m", "run": "4m", "shm": "4m"}


@dataclass
class Place:
    """One sandbox with its session."""

    backend: DockerBackend
    instance: DockerInstance
    session: Session

    async def sh(self, script: str, **request: Any) -> Exit:
        """Run a shell's script as USER."""
        request = {"uid": USER, "gid": USER, "env": {"PATH": "/bin:/usr/bin"}, **request}
        ended = await self.session.run(ExecRequest(["/bin/sh", "-c", script], **request))
        assert isinstance(ended, Exit), ended
        return ended


def docker(*args: str) -> str:
    """What Docker's own command prints, whatever TLS a test asks for."""
    env = {name: text for name, text in os.environ.items() if name != "DOCKER_TLS_VERIFY"}
    return subprocess.run(
        ["docker", *args], capture_output=True, text=True, timeout=60, check=True, env=env
    ).stdout.strip()


def new_id() -> str:
    return f"test-{secrets.token_hex(6)}"


def spec_of(image: str = BUSYBOX, **fields: Any) -> SandboxSpec:
    return SandboxSpec.parse({"image": image, "limits": LIMITS, **fields})


async def greet(instance: DockerInstance) -> Session:
    """A session with an instance's guest, attached or detached as its spec says."""
    record = instance.record
    next_marker = os.urandom(16) if record.marker else b""
    marker, instance.record = record.marker, replace(record, marker=next_marker)
    return await Session.start(
        instance.connect,
        marker=marker,
        next_marker=next_marker,
        lease=30,
        lifetime=record.spec.lifetime,
        detached=record.spec.detached,
        deadline=30,
    )


@pytest.fixture
async def backend(state_directory: Path) -> AsyncIterator[DockerBackend]:
    require_docker(BUSYBOX)
    backend = DockerBackend()
    yield backend
    await backend.aclose()


Make = Callable[..., Awaitable[Place]]


@pytest.fixture
async def make(backend: DockerBackend) -> AsyncIterator[Make]:
    """Makes sandboxes that are gone, and leave nothing, when the test ends."""
    made: list[Place] = []

    async def create(*, binds: tuple[Bind, ...] = (), **fields: Any) -> Place:
        spec = spec_of(**fields)
        facts = await backend.facts(spec)
        instance = await backend.create(spec, new_id(), facts, binds=binds)
        try:
            session = await greet(instance)
        except BaseException:
            await instance.delete()
            raise
        made.append(Place(backend, instance, session))
        return made[-1]

    yield create
    for place in made:
        await place.instance.delete()
        await place.session.close()
        assert_nothing_left(place.instance.record.id)


@pytest.fixture(params=["socket", "stream"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each transport in turn, forced."""
    name = str(request.param)
    monkeypatch.setenv("RINGFENCE_DOCKER_TRANSPORT", name)
    return name


def assert_nothing_left(sandbox_id: str) -> None:
    """No container, running or not, and no directory of this sandbox."""
    end = time.monotonic() + 20
    while left := docker("ps", "-aq", "--filter", f"label=ringfence.id={sandbox_id}"):
        assert time.monotonic() < end, f"container {left} is left"
        time.sleep(0.05)
    assert not [path for path in state.state_directory().rglob("*") if path.name == sandbox_id]
