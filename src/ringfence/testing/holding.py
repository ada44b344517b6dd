"""Checks of what a sandbox holds of its host and of other sandboxes."""

from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.backends.base import Features
from ringfence.testing.base import Checks, Open, pool_of


class HoldingChecks(Checks):
    """Mounts, a repository, a fork of another one, and nothing else."""

    async def test_mounts_appear_read_only(
        self, fresh: Open, features: Features, tmp_path: Path
    ) -> None:
        """A mounted directory is seen and cannot be written; without mounts, UnsupportedError."""
        source = _directory(tmp_path / "mounted", "from the host")
        mounts = [ringfence.Mount(source=str(source), destination="/mounted")]
        if not features.mounts:
            with pytest.raises(ringfence.UnsupportedError, match="mounts"):
                await fresh(mounts=mounts)
            return
        async with fresh(mounts=mounts) as sandbox:
            assert await sandbox.files.read("/mounted/file") == b"from the host"
            with pytest.raises(ringfence.PathDeniedError):
                await sandbox.files.write("/mounted/new", b"x")
        assert [path.name for path in source.iterdir()] == ["file"]

    async def test_a_repository_is_worked_on_as_a_copy(
        self, fresh: Open, features: Features, tmp_path: Path
    ) -> None:
        """Changes are in the patch and not in the original; without mounts, UnsupportedError."""
        repository = _directory(tmp_path / "repository", "before\n")
        if not features.mounts:
            with pytest.raises(ringfence.UnsupportedError, match="repository"):
                await fresh(repository=repository)
            return
        async with fresh(repository=repository) as sandbox:
            assert sandbox.cwd == "/workspace"
            line = "cat file && echo after >> file && echo new > other"
            result = await sandbox.exec(shell=line)
            assert (result.stdout, result.stderr) == (b"before\n", b"")
            assert sandbox.workspace is not None
            patch = await sandbox.workspace.patch()
        assert b"+after" in patch
        assert b"+++ b/other" in patch
        assert [path.name for path in repository.iterdir()] == ["file"]
        assert (repository / "file").read_text() == "before\n"

    async def test_a_pool_binds_a_repository_where_it_can(
        self, spec_kwargs: dict[str, Any], features: Features, tmp_path: Path
    ) -> None:
        """A warm member is then as if it had been opened with it; elsewhere, UnsupportedError
        before one is taken."""
        repository = _directory(tmp_path / "repository", "before\n")
        async with pool_of(spec_kwargs, size=1) as pool:
            if not features.late_binds:
                with pytest.raises(ringfence.UnsupportedError, match="repository"):
                    async with pool.acquire(repository=repository):
                        pytest.fail("acquired")
                assert pool.statistics.hits + pool.statistics.misses == 0
                return
            async with pool.acquire(repository=repository) as sandbox:
                assert sandbox.cwd == "/workspace"
                assert sandbox.receipt["mount /workspace"].ok
                assert (await sandbox.exec(shell="cat file && echo after >> file")).ok
                assert b"+after" in await sandbox.workspace.patch()
        assert (repository / "file").read_text() == "before\n"

    async def test_a_fork_starts_from_the_present_state(
        self, fresh: Open, features: Features, tmp_path: Path
    ) -> None:
        """It is like its parent, on a workspace of its own."""
        if not features.mounts:
            pytest.skip("nothing can be bound: no workspace")
        repository = _directory(tmp_path / "repository", "before\n")
        async with fresh(repository=repository) as sandbox:
            await sandbox.exec(shell="echo parent >> file")
            for fork in await sandbox.fork(2):
                async with fork:
                    result = await fork.exec(shell="cat file && echo mine >> file")
                    assert result.stdout == b"before\nparent\n"
                    asked = {"memory", "cpus", "pids", "user"}
                    told = [one.receipt.controls for one in (sandbox, fork)]
                    assert len({str([c for c in row if c.name in asked]) for row in told}) == 1

    async def test_sandboxes_do_not_see_each_other(self, fresh: Open) -> None:
        """A file of one is not in another, and deleting one leaves the other."""
        async with fresh() as one:
            async with fresh() as two:
                await one.files.write("/tmp/mine", b"x")
                assert not await two.files.exists("/tmp/mine")
                assert one.id != two.id
            assert (await one.exec(["cat", "/tmp/mine"])).stdout == b"x"


def _directory(path: Path, text: str) -> Path:
    """A directory that others may enter, with a file of that text."""
    path.mkdir()
    (path / "file").write_text(text)
    for place in (path, *path.parents[:2]):
        place.chmod(0o755)
    return path
