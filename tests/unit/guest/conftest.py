"""Sessions with the mock's guest and with the real one, which must behave alike."""

import asyncio
import contextlib
import os
import platform
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import ringfence.guest
from ringfence.backends.mock import MockBackend
from ringfence.guest.protocol import Cred
from ringfence.guest.session import Connect, Session
from ringfence.spec import SandboxSpec

from .puppets import Puppet

USER = Cred(1000, 1000)
BINARY = Path(ringfence.guest.__file__).parent / "bin" / f"ringfence-guest-{platform.machine()}"


@dataclass
class Place:
    """A session, and a directory inside that belongs to USER."""

    session: Session
    directory: str
    real: bool
    process: asyncio.subprocess.Process | None = None
    """What started the guest, whose parent it is."""


async def mock_connect() -> Callable[..., Awaitable[asyncio.Transport]]:
    backend = MockBackend()
    spec = SandboxSpec()
    instance = await backend.create(spec, "test", await backend.facts(spec))
    return instance.connect


async def start_real(*before: str) -> tuple[asyncio.subprocess.Process, socket.socket]:
    if not BINARY.exists():
        pytest.skip("the guest is not built: python -m ringfence.guest.build")
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare for a pid namespace")
    ours, theirs = socket.socketpair()
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    process = await asyncio.create_subprocess_exec(
        *before, *namespace, str(BINARY), "--stream", stdin=theirs, stdout=theirs
    )
    theirs.close()
    return process, ours


@contextlib.asynccontextmanager
async def real_place(*before: str) -> AsyncIterator[Place]:
    """The real guest, in a pid namespace of its own. before: a command that starts it."""
    process, ours = await start_real(*before)

    async def connect(factory: Callable[[], asyncio.BaseProtocol]) -> asyncio.Transport:
        transport, _ = await asyncio.get_running_loop().create_connection(factory, sock=ours)
        return transport

    # Not below pytest's own directory: that is root's alone, and each pytest that starts makes it so.
    directory = Path(tempfile.mkdtemp(prefix="ringfence-place-"))
    directory.chmod(0o755)  # noqa: ASYNC240 - quick, and before anything runs
    os.chown(directory, *USER[:2])
    async with session_with(process, connect, directory) as session:
        yield Place(session, str(directory), real=True, process=process)


@contextlib.asynccontextmanager
async def session_with(
    process: asyncio.subprocess.Process, connect: Connect, directory: Path
) -> AsyncIterator[Session]:
    """A session with a guest that was started. Both end after it, and the guest's directory goes."""
    try:
        session = await Session.start(connect, deadline=30)
        yield session
        await session.shutdown()
        await asyncio.wait_for(process.wait(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        shutil.rmtree(directory)


@pytest.fixture(params=["mock", "real"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "real":
        async with real_place() as found:
            yield found
        return
    session = await Session.start(await mock_connect())
    yield Place(session, "/workspace", real=False)
    await session.close()


@pytest.fixture
async def puppet() -> AsyncIterator[tuple[Session, Puppet]]:
    """A session with a guest that does what the test says."""
    guest = Puppet()
    session = await Session.start(guest.connect)
    yield session, guest
    await session.close()
    guest.hang_up()
