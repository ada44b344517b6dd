"""Real guests for the tests of the agent."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence.guest import build
from tests.conftest import missing, require_bwrap, require_root

from .raw import Guest, accept, listen
from .wrapped import Wrapped


@pytest.fixture
def start_guest() -> Iterator[Callable[..., Guest]]:
    """Starts guests with the given options, and ends them after the test."""
    require_root()
    if shutil.which("unshare") is None:
        missing("unshare is not installed: apt-get install util-linux")
    if not build.target().exists():
        missing("the guest is not built: python -m ringfence.guest.build")
    guests: list[Guest] = []

    def start(*options: str, before: Callable[[], None] | None = None) -> Guest:
        guests.append(Guest(build.target(), *options, before=before))
        return guests[-1]

    yield start
    for guest in guests:
        guest.close()


@pytest.fixture
def guest(start_guest: Callable[..., Guest]) -> Guest:
    """A guest with an attached session."""
    started = start_guest("--stream")
    started.raw.hello()
    return started


@pytest.fixture
def wrapped() -> Iterator[Wrapped]:
    """A guest with an attached session that gives each supervisor a pid namespace."""
    require_root()
    require_bwrap()
    started = Wrapped(build.target())
    started.raw.hello()
    yield started
    started.close()


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path, as a socket's must be, that the reserved uid reaches."""
    path = Path("/tmp") / f"rf-{os.urandom(6).hex()}"
    path.mkdir(mode=0o711)
    yield path
    for entry in path.iterdir():
        entry.unlink()
    path.rmdir()


@pytest.fixture
def dialled(start_guest: Callable[..., Guest], directory: Path) -> Guest:
    """A guest with a detached session on a socket."""
    listener = listen(directory)
    guest = start_guest("--socket", str(directory))
    guest.raw = accept(listener)
    guest.raw.hello(detached=True, lifetime=600_000)
    return guest
