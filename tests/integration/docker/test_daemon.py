"""A daemon of the tests' own, with a data root on btrfs: sizes that hold, and ends that come.

Beside the machine's daemon, in a network namespace of its own: a daemon without a bridge removes
the one that it finds.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ringfence.backends.docker import DockerBackend, DockerInstance
from ringfence.errors import BackendUnavailableError, SandboxError
from ringfence.guest.request import ExecRequest, Exit
from ringfence.guest.session import Session
from ringfence.spec import SandboxSpec, State

from ...conftest import missing, require_docker, require_root
from ...images import BUSYBOX
from .conftest import docker, greet, new_id, spec_of

pytestmark = pytest.mark.docker

TOOLS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SECONDS = 60.0


class Daemon:
    """A dockerd whose files are all in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"unix://{directory}/e.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        here = self.directory
        for name in ("pid", "e.sock"):
            (here / name).unlink(missing_ok=True)
        (here / "daemon.json").write_text("{}")
        args = ["--config-file", "daemon.json", "--data-root", "data", "--exec-root", "exec"]
        args = [str(here / arg) if not arg.startswith("--") else arg for arg in args]
        with (here / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--net", "dockerd", *args, "--pidfile", str(here / "pid"), "-H", self.url,
                 "--bridge=none", "--iptables=false"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PATH": TOOLS},
            )  # fmt: skip
        end = time.monotonic() + SECONDS
        while not self._answers():
            assert self.process.poll() is None, (here / "log").read_text()[-2000:]
            assert time.monotonic() < end, "dockerd did not answer"
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            docker("-H", self.url, "version")
        except subprocess.CalledProcessError:
            return False
        return True

    def end(self) -> None:
        """End it and wait until it is gone. Idempotent."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(SECONDS)
            self.process = None


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    require_docker(BUSYBOX)
    require_root()
    for tool in ("dockerd", "mkfs.btrfs"):
        if shutil.which(tool, path=TOOLS) is None:
            missing(f"there is no {tool}")
    directory = Path(tempfile.mkdtemp(prefix="rfd"))
    disk, data = directory / "disk", directory / "data"
    data.mkdir()
    with disk.open("wb") as file:
        file.truncate(2**29)
    started = Daemon(directory)
    try:
        run("mkfs.btrfs", "-q", str(disk))
        run("mount", "-o", "loop", str(disk), str(data))
        started.start()
        saved = directory / "image.tar"
        docker("save", "-o", str(saved), BUSYBOX)
        docker("-H", started.url, "load", "-i", str(saved))
        yield started
    finally:
        started.end()
        end_all_of(directory)
        subprocess.run(
            ["umount", "-R", str(data)], check=False, env={"PATH": TOOLS}, capture_output=True
        )
        shutil.rmtree(directory, ignore_errors=True)


def run(*args: str) -> None:
    subprocess.run(args, check=True, env={"PATH": TOOLS}, capture_output=True, timeout=60)


def end_all_of(directory: Path) -> None:
    """Kill what a daemon left running, known by `directory` in its arguments; wait for its end."""
    end = time.monotonic() + SECONDS
    while left := list(processes_of(directory)):
        assert time.monotonic() < end, f"{left} do not end"
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def processes_of(directory: Path) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(directory).encode() in path.read_bytes():
                yield int(path.parent.name)


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
