"""A workspace that only its daemon can empty is emptied by it, or its failure is told."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ringfence import workspace
from ringfence.backends.base import Record
from ringfence.errors import BackendUnavailableError
from ringfence.ledger.cleaning import clean, emptied
from ringfence.ledger.entry import Entry
from ringfence.spec import SandboxSpec

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


async def test_the_daemon_mounts_it_once(full: list[str], tmp_path: Path) -> None:
    daemon = Daemon(full.clear)
    for _ in range(2):
        await emptied(tmp_path, daemon)
    assert daemon.asked == [(tmp_path.name, VOLUME)]


async def test_a_workspace_is_emptied_before_it_is_removed(
    full: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = []
    monkeypatch.setattr(workspace, "clean", lambda found: removed.append((found, list(full))))
    record = Record("rf-x", "docker", "", "n", "", SandboxSpec(), 0.0)
    await clean(Entry(record, workspace={"directory": str(tmp_path)}), Daemon(full.clear))
    await clean(Entry(record), Daemon(full.clear))
    assert removed == [({"directory": str(tmp_path)}, [])]


async def test_a_backend_that_mounts_nothing_is_not_asked(full: list[str], tmp_path: Path) -> None:
    await emptied(tmp_path, object())
    assert full == ["#1"]


async def test_two_clients_ask_one_after_the_other(full: list[str], tmp_path: Path) -> None:
    """The second of them not at all: for the daemon both are of one name."""

    class Slow(Daemon):
        async def mount_once(self, sandbox_id: str, volume: Mapping[str, str]) -> None:
            self.asked.append((sandbox_id, volume))
            await asyncio.sleep(0.05)
            self.mounts()

    daemon = Slow(full.clear)
    await asyncio.gather(emptied(tmp_path, daemon), emptied(tmp_path, daemon))
    assert len(daemon.asked) == 1


async def test_a_workspace_that_another_client_removed_needs_no_daemon(
    full: list[str], tmp_path: Path
) -> None:
    daemon = Daemon(full.clear)
    await emptied(tmp_path / "gone", daemon)
    assert daemon.asked == []


async def test_a_daemon_that_refuses_is_told(full: list[str], tmp_path: Path) -> None:
    def refuse() -> None:
        raise BackendUnavailableError("no")

    with pytest.raises(BackendUnavailableError):
        await emptied(tmp_path, Daemon(refuse))
