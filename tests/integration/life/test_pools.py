"""A pool's members and the repository of their task."""

from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import SandboxSpec, workspace
from ringfence.ledger import Ledger, reap
from tests.conftest import require_root


async def test_the_entries_of_a_repository_are_counted_as_it_is_bound(
    state_directory: Path, tmp_path: Path
) -> None:
    """As `open` counts them; what the callback raises is raised, and leaves no member."""
    require_root()
    source = tmp_path / "project"
    source.mkdir()
    for number in range(20):
        (source / str(number)).write_text("x")
    seen: list[int] = []

    def broken(entries: int) -> None:
        raise ZeroDivisionError

    async with ringfence.pool(SandboxSpec(backend="process"), size=1) as pool:
        async with pool.acquire(repository=source, progress=seen.append) as sandbox:
            assert (await sandbox.exec(["cat", "7"])).stdout == b"x"
        assert seen[-1] >= 20
        with pytest.raises(ZeroDivisionError):
            async with pool.acquire(repository=source, progress=broken):
                pass
        assert pool.statistics.in_use == 0
    assert await ringfence.list_sandboxes() == []
    assert workspaces(state_directory) == []


@pytest.mark.parametrize("failures", [1, 2])
async def test_a_workspace_that_cannot_be_removed_where_making_it_failed_is_removed_later(
    state_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """With its member, or else by whoever reaps: there may be no descriptor left for either."""
    require_root()
    plain, failed = workspace.clean, []

    def clean(what: Any) -> None:
        if len(failed) < failures:
            failed.append(OSError(24, "too many files are open"))
            raise failed[-1]
        plain(what)

    def broken(entries: int) -> None:
        raise ZeroDivisionError

    source = tmp_path / "project"
    source.mkdir()
    (source / "file").write_text("x")
    monkeypatch.setattr(workspace, "clean", clean)
    async with ringfence.pool(SandboxSpec(backend="process"), size=1) as pool:
        with pytest.raises(ringfence.ResourceExhaustedError):
            async with pool.acquire(repository=source, progress=broken):
                pass
    assert len(failed) == failures
    assert len(workspaces(state_directory)) == failures - 1
    await reap(Ledger.default())
    assert workspaces(state_directory) == []
    assert Ledger.default().live() == []


def workspaces(state: Path) -> list[str]:
    return [one.name for one in (state / "workspaces").iterdir() if one.name[0] != "."]
