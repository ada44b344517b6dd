"""A pool's members and the repository of their task."""

from pathlib import Path

import pytest

import ringfence
from ringfence import SandboxSpec
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
    assert [one for one in (state_directory / "workspaces").iterdir() if one.name[0] != "."] == []
