"""Sandboxes to attack: one for a whole file on each backend, looked at from the host afterwards."""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import ringfence
from ringfence.backends.process import command
from tests.conftest import (
    on_process,
    require_cgroups,
    require_docker,
    require_gvisor,
    require_root,
)
from tests.images import DEBIAN

DOCKER = pytest.param("docker", marks=pytest.mark.docker)
PROCESS = pytest.param("process", marks=pytest.mark.process)
BUBBLEWRAP = pytest.param("bubblewrap", marks=pytest.mark.process)
GVISOR = pytest.param("gvisor", marks=[pytest.mark.docker, pytest.mark.gvisor])

BOTH = pytest.mark.parametrize("kind", [DOCKER, PROCESS], scope="module")
ALL = pytest.mark.parametrize("kind", [DOCKER, PROCESS, GVISOR], scope="module")
ONLY_DOCKER = pytest.mark.parametrize("kind", [DOCKER], scope="module")
"""On which backends the attacks of a file run; always with the defaults of profile strict."""


def keywords(kind: str) -> dict[str, Any]:
    """What opens a strict sandbox of this kind; skips, in CI fails, when it cannot be had."""
    if kind in ("process", "bubblewrap"):
        return on_process()
    require_docker(DEBIAN)
    if kind == "gvisor":
        require_gvisor()
        return {"image": DEBIAN, "backend": "docker", "security": {"runtime": "runsc"}}
    return {"image": DEBIAN, "backend": "docker"}


@contextlib.contextmanager
def begun(kind: str) -> Iterator[None]:
    """Have sandboxes of the kind "bubblewrap" begun by one, as where a keeper may not do it."""
    with pytest.MonkeyPatch.context() as patch:
        if kind == "bubblewrap":
            patch.setattr(command, "begins", lambda *_: False)
        yield


def needs_limits(sandbox: ringfence.Sandbox) -> None:
    """Skip (CI: fail) where an ordinary user does without limits."""
    if sandbox.info.backend == "process":
        require_cgroups()


def needs_users(sandbox: ringfence.Sandbox) -> None:
    """Skip (CI: fail) where all inside is one user, and a command has a first process of its own."""
    if sandbox.info.backend == "process":
        require_root()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state directory for the whole file, and a secret in the environment of whoever opens."""
    directory = tmp_path_factory.mktemp("state")
    directory.chmod(0o711)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RINGFENCE_STATE_DIR", str(directory))
        patch.setenv("HOST_TOKEN", "hunter2-of-the-host")
        yield directory


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(kind: str, state: Path) -> AsyncIterator[ringfence.Sandbox]:
    """The sandbox of the file."""
    with begun(kind):
        async with ringfence.open(**keywords(kind)) as sandbox:
            yield sandbox


@pytest_asyncio.fixture(loop_scope="module")
async def box(shared: ringfence.Sandbox) -> AsyncIterator[ringfence.Sandbox]:
    """It again, found alive after each attack, and emptied."""
    yield shared
    await shared.kill_all()
    await shared.exec(shell="chmod -R u+rwx /tmp /run 2>/dev/null; rm -rf /tmp/* /run/[!r]*")
    assert (await shared.exec(["echo", "alive"], timeout=60)).stdout == b"alive\n"


@pytest.fixture
def mountable() -> Iterator[Path]:
    """A fresh directory of the host that may be bound into a sandbox."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="ringfence-test-", dir="/var/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


async def python(sandbox: ringfence.Sandbox, script: str, **options: Any) -> str:
    """What a Python script printed inside; it must end with 0."""
    result = await sandbox.exec(["python3", "-c", script], **options)
    assert result.ok, result.stderr.decode()
    return result.stdout.decode()


async def sh(sandbox: ringfence.Sandbox, script: str, **options: Any) -> str:
    """What a line for the shell printed inside, however it ended."""
    return (await sandbox.exec(shell=script, **options)).stdout.decode()


def resident() -> int:
    """Bytes that this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
