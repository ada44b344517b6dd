"""Whose files are: as the repository's, as root's made another's, or as asked for."""

import os
import shutil
from pathlib import Path

import pytest

import ringfence
from ringfence import Repository
from ringfence.errors import PolicyDeniedError, ResourceExhaustedError
from ringfence.policy.facts import Facts
from ringfence.sandbox import binds
from ringfence.spec import SandboxSpec
from ringfence.workspace import apply, clean, discard, mounts, prepare
from tests.integration.workspace.conftest import Mount, opened_on
from tests.unit.workspace.conftest import digest_of_tree, inside, only_kept

STRATEGIES = ["overlay", "copy"]


def owners(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_owner_and_modes_by_choice(repository: Path, mounted: Mount, strategy: str) -> None:
    before = digest_of_tree(repository)
    prepared = mounted(
        repository, strategy=strategy, owner="1234:5678", file_mode=0o640, directory_mode=0o750
    )
    assert prepared.strategy == strategy
    work = inside(prepared)
    for name in (".", "README.md", "src", "src/code.py", "link", ".git/HEAD"):
        assert owners(work / name) == (1234, 5678), name
    assert (work / "run.sh").stat().st_mode & 0o7777 == 0o640
    assert (work / "src").stat().st_mode & 0o7777 == 0o750
    assert len(prepared.changes()) == 0
    (work / "README.md").write_text("changed\n")
    (work / "fresh").touch()
    os.chown(work / "fresh", 1234, 5678)
    assert digest_of_tree(repository) == before
    apply(prepared)
    assert owners(repository / "README.md") == owners(repository)
    assert owners(repository / "fresh") == owners(repository)
    assert (repository / "README.md").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_what_is_the_owners_is_mapped(repository: Path, mounted: Mount, strategy: str) -> None:
    (repository / "README.md").chmod(0o644)
    os.chown(repository / "run.sh", 4321, 4321)
    prepared = mounted(repository, strategy=strategy, uid=1000)
    assert owners(inside(prepared) / "README.md") == (1000, 1000)
    assert owners(inside(prepared) / "run.sh") == (4321, 4321)
    assert owners(repository / "run.sh") == (4321, 4321)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_put_back_is_whose_it_was(repository: Path, mounted: Mount, strategy: str) -> None:
    os.chown(repository / "run.sh", 4321, 4321)
    prepared = mounted(repository, strategy=strategy, uid=1000)
    for name in ("README.md", "run.sh"):
        (inside(prepared) / name).unlink()
    discard(prepared)
    assert owners(inside(prepared) / "README.md") == (1000, 1000)
    assert owners(inside(prepared) / "run.sh") == (4321, 4321)
    assert len(prepared.changes()) == 0


@pytest.mark.docker
async def test_commands_run_as_the_owner_of_the_repository(
    repository: Path, open_place: Path, state_directory: Path
) -> None:
    where = opened_on("docker")
    project = open_place / "project"
    shutil.copytree(repository, project, symlinks=True)
    for path in [project, *project.rglob("*")]:
        os.chown(path, 1234, 1235, follow_symlinks=False)
    project.chmod(0o700)
    before = digest_of_tree(project)
    async with ringfence.open(**where, repository=Repository(path=str(project))) as sandbox:
        done = await sandbox.exec(shell="id -u; id -g; echo x >> README.md && stat -c %u README.md")
        assert done.stdout == b"1234\n1235\n1234\n", done.stderr
        assert digest_of_tree(project) == before
        await sandbox.workspace.apply()
    assert owners(project / "README.md") == (1234, 1235)


@pytest.mark.docker
async def test_of_a_root_that_may_be_written_the_workspace_alone_is_kept_when_asked_for(
    repository: Path, state_directory: Path
) -> None:
    async with ringfence.open(
        **opened_on("docker"),
        profile="permissive",
        security={"read_only_root": False},
        repository=str(repository),
    ) as sandbox:
        kept = await sandbox.workspace.snapshot()
        assert kept.kind == "workspace"
        assert kept.digest.startswith("sha256:")


async def test_the_daemons_data_is_never_a_repository_or_a_mount(
    tmp_path: Path, state_directory: Path
) -> None:
    data = tmp_path / "data"
    (data / "overlay2").mkdir(parents=True)
    facts = Facts(memory=1 << 30, cpus=1, nofile=1024, data_root=str(data))
    for given in (
        {"repository": {"path": str(data / "overlay2")}},
        {"repository": {"path": str(tmp_path)}},
        {"mounts": [{"source": str(data / "overlay2"), "destination": "/data"}]},
    ):
        spec = SandboxSpec.model_validate(given)
        with pytest.raises(PolicyDeniedError, match="data"):
            await binds.prepare(spec, "none", facts)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_disk_that_is_full_leaves_nothing(
    repository: Path, open_place: Path, strategy: str
) -> None:
    (repository / "big").write_bytes(os.urandom(3 << 20))
    before = digest_of_tree(repository)
    state = open_place / "state"
    state.mkdir()
    mounts.mount("tmpfs", "tmpfs", state, "size=2m")
    directory = state / "workspace"
    with pytest.raises(ResourceExhaustedError) as caught:
        prepare(
            Repository(path=str(repository)),
            directory=directory,
            uid=1000,
            gid=1000,
            privileged=True,
            strategy=strategy,
        )
    assert "big" in caught.value.message
    assert not directory.exists()
    assert only_kept(state / ".layers")
    assert digest_of_tree(repository) == before
    clean(directory)
