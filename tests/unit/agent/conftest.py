"""Real guests for the tests of the agent."""

import shutil
from collections.abc import Callable, Iterator

import pytest

from ringfence.guest import build
from tests.conftest import missing, require_root

from .raw import Guest


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
