"""A workspace that only its daemon can empty is emptied by it, or its failure is told."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ringfence import workspace
from ringfence.errors import BackendUnavailableError
from ringfence.ledger.cleaning import emptied

VOLUME = {"type": "overlay", "device": "overlay", "o": "x"}


class Daemon:
    """mounts: what a mount does."""

    def __init__(self, mounts: Callable[[], object]) -> None:
        self.mounts = mounts
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    async def mount_once(self, sandbox_id: str, volume: Mapping[str, str]) -> None:
        self.asked.append((sandbox_id, volume))
        self.mounts()


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What only root may remove; while there is something, it is asked for."""
    left = ["#1"]
    monkeypatch.setattr(workspace, "emptying", lambda directory: VOLUME if left else None)
    return left


async def test_the_daemon_mounts_it_once(full: list[str]) -> None:
    daemon = Daemon(full.clear)
    for _ in range(2):
        await emptied(Path("/w/one"), daemon)
    assert daemon.asked == [("one", VOLUME)]


async def test_a_backend_that_mounts_nothing_is_not_asked(full: list[str]) -> None:
    await emptied(Path("/w/one"), object())
    assert full == ["#1"]


async def test_what_another_client_emptied_meanwhile_is_no_failure(full: list[str]) -> None:
    def refuse() -> None:
        full.clear()
        raise BackendUnavailableError("no")

    daemon = Daemon(refuse)
    await emptied(Path("/w/one"), daemon)
    assert len(daemon.asked) == 1


async def test_a_daemon_that_refuses_is_told(full: list[str]) -> None:
    def refuse() -> None:
        raise BackendUnavailableError("no")

    with pytest.raises(BackendUnavailableError):
        await emptied(Path("/w/one"), Daemon(refuse))
