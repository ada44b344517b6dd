"""The round trip of a repository through real sandboxes."""

import os
import shutil
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Literal

import pytest

import ringfence
from ringfence import Repository
from ringfence.errors import InvalidSpecError, ResourceExhaustedError, StateError
from ringfence.sandbox import repository as repositories
from ringfence.workspace import For, attach, clean, mounts, prepare
from tests.conftest import require_bwrap, require_docker
from tests.images import DEBIAN
from tests.integration.workspace.conftest import (
    BACKENDS,
    check_hidden_and_guarded,
    opened_on,
    shell,
)
from tests.integration.workspace.test_sources import served as served  # noqa: PLC0414 - a fixture
from tests.unit.workspace.conftest import digest_of_tree, git, only_kept


def owner(path: Path) -> int:
    return path.stat().st_uid


@pytest.mark.parametrize("backend", BACKENDS)
async def test_copy_gives_a_writable_view_and_a_patch(
    backend: str, repository: Path, state_directory: Path
) -> None:
    before = digest_of_tree(repository)
    place = repository.parent / "out"
    size = "32m" if os.geteuid() == 0 else None  # nobody else can mount one that has it
    async with ringfence.open(
        **opened_on(backend), repository=Repository(path=str(repository), size=size)
    ) as sandbox:
        work = sandbox.workspace
        assert await shell(sandbox, "pwd; ls -A") == (
            "/workspace\n.git\nREADME.md\nlink\nrun.sh\nsrc\n"
        )
        if backend == "docker":
            said = await shell(
                sandbox,
                "echo more >> README.md && git commit -q -a -m inside && git log --format=%an:%s"
                " && git status --porcelain",
            )
            assert said == "Ringfence:inside\nAda:first\n"
        else:
            await shell(sandbox, "echo more >> README.md")
        await shell(sandbox, "mkdir out; echo result > out/report; rm run.sh")
        changes = await work.changes()
        assert changes.of("modified") == ("README.md",)
        assert changes.of("deleted") == ("run.sh",)
        assert b"+more\n" in await work.patch()
        both = await work.diff()
        assert "3 files changed" in both.stat
        assert (both.data, both.stat) == (await work.patch(), await work.summary())
        assert await work.download(["out"], place) == ["out/report"]
        assert digest_of_tree(repository) == before
        await work.apply()
        assert (repository / "README.md").read_text() == "A project.\nmore\n"
        assert await shell(sandbox, "echo still here") == "still here\n"
        if (
            backend == "docker" and os.geteuid() != 0
        ):  # the daemon's own mount: see docs/workspace.md
            with pytest.raises(StateError, match="open a new sandbox"):
                await work.discard()
            return
        await work.discard()
        assert "A project.\n#!/bin/sh" in await shell(sandbox, "cat README.md run.sh")
        full = await sandbox.exec(shell="head -c 80m /dev/zero > big")
        assert full.exit_code != 0
        directory = work.prepared.directory
        assert directory.exists()
    assert not directory.exists()
    assert not mounts.mounted_below(state_directory)
    assert git(repository, "log", "--format=%s").strip() == "first"


@pytest.mark.parametrize("backend", BACKENDS)
async def test_ro_and_rw_hide_and_guard(
    backend: str, repository: Path, state_directory: Path
) -> None:
    (repository / "vendor/.git").mkdir(parents=True)
    (repository / "vendor/.git/config").write_text("token\n")
    for mode in ("ro", "rw"):
        async with ringfence.open(
            **opened_on(backend), repository=Repository(path=str(repository), mode=mode)
        ) as sandbox:
            await check_hidden_and_guarded(sandbox, mode)
    assert (repository / "written").read_text() == "x\n"
    assert owner(repository / "written") == owner(repository)
    assert (repository / ".env").read_text() == "TOKEN=hunter2\n"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["ro", "rw"])
async def test_ro_and_rw_cover_sockets_and_leave_links(
    backend: str,
    mode: Literal["ro", "rw"],
    repository: Path,
    state_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing inside talks to who listens in the repository, and a hidden link makes no file."""
    for number, target in enumerate(
        ("not there", "/etc/hostname", "README.md", "src", "/no/where")
    ):
        (repository / f"{number}.pem").symlink_to(target)
    os.mkfifo(repository / "fifo")
    monkeypatch.chdir(repository)  # its whole path may be too long for a socket
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        before = digest_of_tree(repository)
        async with ringfence.open(
            **opened_on(backend), repository=Repository(path=str(repository), mode=mode)
        ) as sandbox:
            said = await shell(sandbox, "cat fifo socket; wc -l < README.md; readlink 1.pem")
        assert said == "1\n/etc/hostname\n"
    assert digest_of_tree(repository) == before


@pytest.mark.parametrize("backend", BACKENDS)
async def test_snapshot_and_fork_of_a_sandbox(
    backend: str, repository: Path, state_directory: Path
) -> None:
    where = opened_on(backend)
    async with ringfence.open(**where, repository=str(repository)) as parent:
        await shell(parent, "echo parent >> README.md")
        kept = await parent.snapshot()
        forks = await parent.fork(3)
        try:
            for number, one in enumerate(forks):
                assert await shell(one, "cat README.md") == "A project.\nparent\n"
                await shell(one, f"echo {number} > mine")
            changes = [await one.workspace.changes(since="parent") for one in forks]
            assert [change.of("added") for change in changes] == [("mine",)] * 3
            assert (await forks[0].workspace.changes()).of("modified") == ("README.md",)
        finally:
            for one in forks:
                await one.delete(grace=0)
        with pytest.raises(InvalidSpecError):
            await parent.fork(0)
    async with ringfence.open(**where, snapshot=kept.digest) as again:
        assert await shell(again, "cat README.md") == "A project.\nparent\n"
        assert len(await again.workspace.changes()) == 0
        await shell(again, "echo x > y")
        with pytest.raises(StateError, match="original"):
            await again.workspace.apply()
    assert only_kept(state_directory / "workspaces/.layers")


@pytest.mark.docker
async def test_a_detached_sandbox_keeps_its_workspace(
    repository: Path, state_directory: Path
) -> None:
    async with ringfence.open(
        **opened_on("docker"), repository=str(repository), detached=True, lifetime="10m"
    ) as first:
        await shell(first, "echo first >> README.md")
    again = await ringfence.open(id=first.id)
    try:
        assert await shell(again, "cat README.md") == "A project.\nfirst\n"
        assert (await again.workspace.changes()).of("modified") == ("README.md",)
    finally:
        await again.delete(grace=0)
    assert not mounts.mounted_below(state_directory)
    assert not (state_directory / "workspaces" / first.id).exists()


@pytest.mark.parametrize("backend", BACKENDS)
async def test_the_login_in_its_url_is_in_no_log_of_who_opens_it_again(
    served: str, state_directory: Path, tmp_path: Path, backend: str
) -> None:
    """Not even as a command's argument, as in the log of who opened it first."""
    url, log = served.replace("://", "://me:hunter2@"), tmp_path / "log"
    async with ringfence.open(
        **opened_on(backend), repository=url, detached=True, lifetime="10m"
    ) as first:
        pass
    again = await ringfence.open(id=first.id, audit=log)
    try:
        await again.exec(["echo", url])
    finally:
        await again.delete(grace=0)
    assert served.replace("://", "://[redacted]@") in log.read_text()
    assert "hunter2" not in log.read_text()


@pytest.mark.docker
async def test_an_open_that_fails_leaves_nothing(repository: Path, state_directory: Path) -> None:
    where = opened_on("docker")
    absent = {**where, "image": f"ringfence-test/none-{uuid.uuid4().hex}"}
    with pytest.raises(ringfence.SandboxError):
        await ringfence.open(**absent, repository=str(repository))
    async with ringfence.open(**where, repository=str(repository)) as sandbox:
        await shell(sandbox, "head -c 3m /dev/zero > big")
        with pytest.raises(ResourceExhaustedError):
            await sandbox.workspace.patch(max_bytes=1 << 20)
        assert await shell(sandbox, "echo thawed") == "thawed\n"
    assert not mounts.mounted_below(state_directory)
    assert [p.name for p in (state_directory / "workspaces").iterdir()] == [".layers"]


SCRIPT = """cd /workspace
cat .env 2>/dev/null
echo more >> README.md
rm -rf src && mkdir src && echo n > src/new
git -c safe.directory=* status --porcelain"""


def prepare_as(uid: int, path: Path, directory: Path) -> None:
    """Prepare a workspace in a process of an ordinary user, as a client in the docker group."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            prepare(
                Repository(path=str(path)),
                directory=directory,
                uid=uid,
                gid=uid,
                privileged=False,
                volumes=True,
            )
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.docker
def test_the_daemon_mounts_the_overlay_for_a_client_who_may_not(
    repository: Path, open_place: Path
) -> None:
    require_docker(DEBIAN)
    project = open_place / "project"
    shutil.copytree(repository, project, symlinks=True)
    for path in [open_place, project, *project.rglob("*")]:
        os.chown(path, 1000, 1000, follow_symlinks=False)
    directory = open_place / "work"
    prepare_as(1000, project, directory)
    prepared = attach({"directory": str(directory)})
    assert prepared.strategy == "volume"
    options = prepared.binds[0].volume or {}
    mount = ["type=volume", "dst=/workspace", "volume-driver=local", "volume-nocopy=true"]
    mount += [f'"volume-opt={name}={value}"' for name, value in options.items()]
    command = ["docker", "run", "--rm", "--network=none", "--user=1000:1000"]
    command += ["--mount", ",".join(mount), DEBIAN, "sh", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "hunter2" not in done.stdout
    assert " M README.md" in done.stdout
    changes = prepared.changes()
    assert changes.of("modified") == ("README.md",)
    assert changes.of("deleted") == ("src/code.py", "src/data.bin")
    assert changes.of("added") == ("src/new",)
    assert b"+more\n" in prepared.patch().data
    assert (project / "src/code.py").exists()
    clean(directory)


@pytest.mark.docker
async def test_the_backend_passes_the_volume_on(
    repository: Path, open_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = opened_on("docker")
    project = open_place / "project"
    shutil.copytree(repository, project, symlinks=True)
    monkeypatch.setenv("RINGFENCE_STATE_DIR", str(open_place / "state"))

    def whom(granted: object, facts: object, *, volumes: bool) -> For:
        return For(1000, 1000, privileged=False, volumes=volumes)

    for path in [project, *project.rglob("*")]:
        os.chown(path, 1000, 1000, follow_symlinks=False)
    monkeypatch.setattr(repositories, "whom_for", whom)
    async with ringfence.open(**where, repository=str(project)) as sandbox:
        assert sandbox.workspace.strategy == "volume"
        await shell(sandbox, "echo more >> README.md")
        assert b"+more\n" in await sandbox.workspace.patch()
    assert (project / "README.md").read_text() == "A project.\n"


OPENING = """
import asyncio, resource, sys, ringfence

async def main():
    spec = ringfence.Repository(path=sys.argv[1])
    async with ringfence.open(backend="process", repository=spec) as sandbox:
        line = "echo new > new; echo more >> d3/f5; rm -r d7; find . -type f | wc -l"
        said = await sandbox.exec(["sh", "-c", line], timeout=600)
        changes = await sandbox.workspace.changes()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(int(said.check().stdout), len(changes), peak)

asyncio.run(main())
"""


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_million_files_are_worked_on(tmp_path: Path, state_directory: Path) -> None:
    """The most there may be, in one and a half GiB of the client's memory; twice, since the second
    opening stands on the tree of the first."""
    require_bwrap()
    root = tmp_path / "many"
    for directory in range(998):
        place = root / f"d{directory}"
        place.mkdir(parents=True)
        for file in range(1000):
            os.close(os.open(place / f"f{file}", os.O_CREAT | os.O_WRONLY))
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", OPENING, root],
            capture_output=True,
            text=True,
            check=False,
            timeout=1700,
        )
        assert done.returncode == 0, done.stderr
        files, changed, peak = map(int, done.stdout.split())
        assert (files, changed) == (997_001, 1002)
        assert peak < 3 << 19, "KiB"
    assert sum(1 for _ in (root / "d7").iterdir()) == 1000


@pytest.fixture
def file_to_mount(open_place: Path, repository: Path) -> Path:
    """Beside a repository with a secret, in the place of which it may be mounted."""
    (repository / ".env").write_text("SECRET=1\n")
    file = open_place / "file"
    file.write_text("mounted\n")
    file.chmod(0o644)
    return file


@pytest.mark.parametrize("backend", BACKENDS)
async def test_what_is_made_for_a_mount_is_no_change_and_stays_while_it_is_mounted(
    backend: str, repository: Path, file_to_mount: Path, state_directory: Path
) -> None:
    targets = ("/workspace/new/er/file", "/workspace/.env", "/workspace/src/more")
    mounts = [{"source": file_to_mount, "destination": target} for target in targets]
    before = digest_of_tree(repository)
    async with ringfence.open(
        **opened_on(backend), repository=str(repository), mounts=mounts
    ) as sandbox:
        work = sandbox.workspace
        assert len(await work.changes()) == 0
        await shell(sandbox, "echo 1 > added")
        child = (await sandbox.fork(1))[0]
        async with child:
            assert (await child.workspace.changes()).of("added") == ("added",)
            assert len(await child.workspace.changes(since="parent")) == 0
        assert (await work.discard()).of("added") == ("added",)
        assert await shell(sandbox, f"cat {' '.join(targets)}") == "mounted\n" * 3
        await work.apply()
    assert digest_of_tree(repository) == before


@pytest.mark.parametrize("mode", ["ro", "rw"])
@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_mount_may_lie_where_something_of_the_repository_is_hidden(
    backend: str,
    mode: Literal["ro", "rw"],
    repository: Path,
    file_to_mount: Path,
    state_directory: Path,
) -> None:
    mounts = [{"source": file_to_mount, "destination": "/workspace/.env"}]
    async with ringfence.open(
        **opened_on(backend),
        repository=Repository(path=str(repository), mode=mode),
        mounts=mounts,
    ) as sandbox:
        assert await shell(sandbox, "cat /workspace/.env") == "mounted\n"
    assert (repository / ".env").read_text() == "SECRET=1\n"


@pytest.mark.parametrize("backend", BACKENDS)
async def test_what_is_made_for_a_mount_is_in_no_snapshot(
    backend: str, repository: Path, file_to_mount: Path, state_directory: Path
) -> None:
    """Neither the places nor the directories above them; what they cover in the repository is."""
    targets = ("new/er/file", "new/file", ".env", "src/more", "run.sh", "README.md")
    mounts = [
        {"source": file_to_mount, "destination": f"/workspace/{target}"} for target in targets
    ]
    opened = {**opened_on(backend), "repository": str(repository)}
    async with ringfence.open(**opened, security={"tmpfs": {"/workspace/t": "1m"}}) as sandbox:
        await shell(sandbox, "echo 1 > t/gone")
        plain = await sandbox.snapshot()
    async with ringfence.open(**opened, mounts=mounts) as sandbox:
        assert await shell(sandbox, "cat new/er/file run.sh") == "mounted\n" * 2
        assert (await sandbox.snapshot()).digest == plain.digest
        child = (await sandbox.fork(1))[0]
        async with child:
            assert (await child.snapshot()).digest == plain.digest
    async with ringfence.open(**opened_on(backend), snapshot=plain.digest) as again:
        assert await shell(again, "ls -A") == ".git\nREADME.md\nlink\nrun.sh\nsrc\n"
        assert await shell(again, "cat README.md; ls src") == "A project.\ncode.py\ndata.bin\n"
