"""The backends that a walk over the ledger needed are closed with it."""

import time

import pytest

from ringfence.backends.base import Backend, Record
from ringfence.backends.mock import MockBackend
from ringfence.errors import BackendUnavailableError
from ringfence.ledger import Backends
from ringfence.spec import SandboxSpec


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
