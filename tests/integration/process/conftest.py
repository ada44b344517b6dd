import contextlib
import os
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ringfence.backends.base import Bind, Record
from ringfence.backends.process import ProcessBackend, ProcessInstance
from ringfence.guest.request import ExecRequest, Exit
from ringfence.guest.session import Session
from ringfence.policy.resolve import resolve
from ringfence.sandbox.greeting import greet
from ringfence.spec import Limits, SandboxSpec, Security
from tests.conftest import missing, require_bwrap, require_root
from tests.integration.process.kept import WAIT_SECONDS, Kept

UNLIMITED = ("memory", "swap", "cpus", "pids")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.process)


@dataclass(frozen=True)
class Ran:
    """How a command ended. code: as a shell has it, negative for a signal."""

    code: int
    stdout: bytes
    stderr: bytes
    end: Exit


@dataclass
class Sandbox:
    """A started sandbox with its session."""

    instance: ProcessInstance
    session: Session

    @property
    def record(self) -> Record:
        return self.instance.record

    async def run(self, *args: str, user: int = 1000, **more: Any) -> Ran:
        result = await self.session.run(
            ExecRequest(
                args=args,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                uid=user,
                gid=user,
                timeout=more.pop("timeout", 60.0),
                **more,
            )
        )
        assert isinstance(result, Exit), result
        code = os.waitstatus_to_exitcode(result.status)
        return Ran(code, result.stdout, result.stderr, result)

    async def sh(self, script: str, **more: Any) -> Ran:
        return await self.run("/bin/sh", "-c", script, **more)


def cgroups(sandbox_id: str) -> list[Path]:
    """What is left of a sandbox's cgroups."""
    top = Path("/sys/fs/cgroup")
    return [*top.glob(f"*/ringfence/{sandbox_id}"), *top.glob(f"ringfence/{sandbox_id}")]


def processes(text: str) -> list[int]:
    """Processes of this machine with `text` on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def new_id() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


async def grant(backend: ProcessBackend, **wanted: Any) -> tuple[SandboxSpec, Any]:
    security = wanted.pop("security", {})
    limits = wanted.pop("limits", {})
    if os.geteuid() != 0:
        security = {"allow_degraded": UNLIMITED, **security}
    spec = SandboxSpec(security=Security(**security), limits=Limits(**limits), **wanted)
    facts = await backend.facts(spec)
    return resolve(spec, facts), facts


@contextlib.asynccontextmanager
async def opened(
    backend: ProcessBackend, *, binds: Sequence[Bind] = (), **wanted: Any
) -> AsyncIterator[Sandbox]:
    """A sandbox that is deleted at the end."""
    spec, facts = await grant(backend, **wanted)
    instance = await backend.create(spec, new_id(), facts, binds=binds)
    try:
        session = await greet(instance, spec)
        await session.filter(instance.filter)
        yield Sandbox(instance, session)
        await session.close()
    finally:
        await instance.delete()


@pytest.fixture
def backend(state_directory: Path) -> ProcessBackend:
    require_bwrap()
    require_root()
    return ProcessBackend()


Opened = Callable[..., contextlib.AbstractAsyncContextManager[Sandbox]]


@pytest.fixture
def opens(backend: ProcessBackend) -> Opened:
    """`opens(**spec)`: a sandbox as an async context manager."""

    def start(**wanted: Any) -> contextlib.AbstractAsyncContextManager[Sandbox]:
        return opened(backend, **wanted)

    return start


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    require_bwrap()
    require_root()
    made = Kept(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.terminate()
        made.process.wait(WAIT_SECONDS)


@pytest.fixture(scope="session")
def busybox() -> Path:
    """A static program that is a whole system."""
    found = shutil.which("busybox")
    if found is None:
        missing("busybox is not installed: apt-get install busybox-static")
    return Path(str(found))


def image(root: Path, busybox: Path) -> Path:
    """An image with busybox alone, and a file at its top."""
    (root / "bin").mkdir(parents=True)
    (root / "bin/busybox").write_bytes(busybox.read_bytes())
    (root / "bin/busybox").chmod(0o755)
    (root / "bin/sh").symlink_to("busybox")
    (root / "top").write_text("a file at the top")
    return root


@pytest.fixture
def reaping_kernel() -> Iterator[None]:
    """A client that ignores SIGCHLD: the kernel reaps its children, and tells no status."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)
