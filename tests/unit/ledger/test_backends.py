"""The backends that a walk over the ledger needed are closed with it."""

import time

import pytest

from ringfence.backends.base import Backend, Record
from ringfence.backends.mock import MockBackend
from ringfence.errors import BackendUnavailableError, NotFoundError
from ringfence.ledger import Backends
from ringfence.spec import SandboxSpec


def test_each_is_opened_where_its_record_says() -> None:
    """A sandbox on another daemon than the first is not looked for on that: it would be "lost"."""
    asked = []

    def load(name: str, endpoint: str | None) -> Backend:
        asked.append((name, endpoint))
        return MockBackend()

    backends = Backends(load)
    for endpoint in ("unix:///one", "unix:///two", "unix:///one", ""):
        backends.of(Record("rf-x", "docker", endpoint, "n", "", SandboxSpec(), time.time()))
    assert asked == [("docker", "unix:///one"), ("docker", "unix:///two"), ("docker", None)]


async def test_one_that_is_not_made_yet_is_not_asked_for() -> None:
    def load(name: str, endpoint: str | None) -> Backend:
        pytest.fail("it has no name there")

    record = Record("rf-x", "docker", "", "", "", SandboxSpec(), time.time())
    async with Backends(load) as backends:
        with pytest.raises(NotFoundError, match="being created"):
            async with backends.instance(record):
                pass
        async with backends.if_there(record) as instance:
            assert instance is None


async def test_all_are_closed_whatever_one_of_them_raises() -> None:
    closed = []

    class Closing(MockBackend):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.of = name

        async def aclose(self) -> None:
            closed.append(self.of)
            raise BackendUnavailableError(f"{self.of} went away")

    def load(name: str, endpoint: str | None) -> Backend:
        return Closing(name)

    backends = Backends(load)
    for name in ("first", "second", "first"):
        backends.of(Record(name, name, "", "n", "", SandboxSpec(), time.time()))
    with pytest.raises(BackendUnavailableError):
        await backends.__aexit__(None, None, None)
    assert sorted(closed) == ["first", "second"]
