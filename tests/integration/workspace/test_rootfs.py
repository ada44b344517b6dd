"""A root file system that the policy made writable is kept with the workspace, and comes back."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.backends.docker import removal
from ringfence.backends.docker.backend import DockerBackend
from ringfence.backends.docker.supply import Supply
from ringfence.digest.store import Store
from ringfence.errors import (
    ImageError,
    InvalidSpecError,
    NotFoundError,
    ResourceExhaustedError,
    SandboxLostError,
    UnsupportedError,
)
from ringfence.images import Reference
from ringfence.ledger import Ledger, reap
from ringfence.sandbox import control
from ringfence.sandbox.context import Context
from ringfence.sandbox.forks import Branching
from ringfence.sandbox.snapshots import delete_snapshot, snapshots, start_of
from tests.conftest import require_bwrap, require_docker, require_gvisor, require_root
from tests.images import BUSYBOX
from tests.integration.workspace.conftest import shell

pytestmark = pytest.mark.docker

WRITABLE: dict[str, Any] = {
    "backend": "docker",
    "profile": "permissive",
    "user": "0:0",
    "security": {"read_only_root": False},
}


@pytest.fixture
async def supply() -> AsyncIterator[Supply]:
    require_docker(BUSYBOX)
    async with Supply() as supply:
        yield supply


async def build(directory: Path, name: str, dockerfile: str) -> None:
    (directory / "Dockerfile").write_text(dockerfile)
    async with Supply() as supply:
        await supply.build(directory, Reference.parse_familiar(name))


async def remove(name: str) -> None:
    async with Supply() as supply:
        await supply.remove(name, force=True)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Busybox with a configuration of its own, so that no other test has the same ids."""
    require_docker(BUSYBOX)
    name = f"ringfence-root-test/{secrets.token_hex(6)}"
    dockerfile = f'FROM {BUSYBOX}\nENV OWN={name}\nLABEL theirs="yes"\nWORKDIR /srv\nCMD ["sh"]\n'
    asyncio.run(build(tmp_path_factory.mktemp("context"), f"{name}:1", dockerfile))
    yield f"{name}:1"
    asyncio.run(remove(f"{name}:1"))


@pytest.fixture
def kept(state_directory: Path) -> Iterator[list[str]]:
    """Digests of snapshots, whose images are removed afterwards."""
    digests: list[str] = []
    yield digests
    for digest in digests:
        try:
            image = start_of(digest, snapshots()).image
        except NotFoundError:
            continue
        subprocess.run(["docker", "rmi", image], capture_output=True, check=False, timeout=60)


async def config_of(image: str) -> dict[str, Any]:
    async with Supply() as supply:
        image = str((await supply.inspect(image)).id)
    asked = await asyncio.create_subprocess_exec(
        "docker", "image", "inspect", image, stdout=subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(asked.communicate(), 60)
    return dict(json.loads(said)[0]["Config"])


# The Engine makes some files of /etc anew in each container.
LOOK = (
    "cd / && ls -lR bin etc srv opt | grep -v -e '^total' -e ' host' -e ' resolv.conf$' -e ' mtab '"
    " && cat /etc/mine /opt/deep/* && readlink /opt/link"
)


async def test_root_and_workspace_come_back_as_they_were(
    repository: Path, state_directory: Path, supply: Supply, image: str, kept: list[str]
) -> None:
    require_root()
    secret = secrets.token_hex(16)
    async with ringfence.open(
        **WRITABLE, image=image, repository=str(repository), env={"TOKEN": secret}
    ) as sandbox:
        await shell(
            sandbox,
            "echo mine > /etc/mine; chmod 600 /etc/mine; mkdir -p /opt/deep; echo x > /opt/deep/file;"
            " ln -s deep/file /opt/link; rm /bin/vi; echo more >> /workspace/README.md",
        )
        before = await shell(sandbox, LOOK)
        first = await sandbox.snapshot()
        kept.append(first.digest)
        assert first.kind == "both"
        assert (await sandbox.snapshot()).digest == first.digest
        assert await shell(sandbox, LOOK) == before
        await shell(sandbox, "echo later > /etc/later; rm /etc/mine")
        other = await sandbox.snapshot()
        kept.append(other.digest)
        assert other.digest != first.digest
    store = Store(state_directory / "store")
    assert list(store.scrub()) == []
    assert store.gc(grace=0).removed == ()
    assert not any(secret.encode() in store.read(blob.digest) for blob in store.walk())

    start = start_of(first.digest, snapshots())
    for _ in range(2):
        async with ringfence.open(**WRITABLE, snapshot=first.digest) as again:
            assert await shell(again, LOOK) == before
            assert await shell(
                again, "cat /workspace/README.md; echo $OWN; ls /etc/later 2>&1 || :"
            ) == (
                f"A project.\nmore\n{image.partition(':')[0]}\nls: /etc/later: No such file or directory\n"
            )
            assert len(await again.workspace.changes()) == 0
        await supply.remove(str((await supply.inspect(start.image)).id))

    async with ringfence.open(**WRITABLE, snapshot=other.digest) as again:
        assert await shell(again, "cat /etc/later") == "later\n"


async def test_the_image_of_a_root_is_ours_clean_and_goes_with_its_snapshot(
    state_directory: Path, supply: Supply, image: str, kept: list[str]
) -> None:
    async with ringfence.open(**WRITABLE, image=image) as sandbox:
        await shell(sandbox, "echo mine > /etc/mine")
        first = await sandbox.snapshot()
        kept.append(first.digest)
    assert first.kind == "root"
    assert await supply.images({"ringfence.id": sandbox.id}) == []
    start = start_of(first.digest, snapshots())
    assert start.workspace is None
    async with ringfence.open(
        backend="docker", snapshot=first.digest, profile="permissive"
    ) as again:
        assert await shell(again, "cat /etc/mine; pwd") == "mine\n/\n"
        assert (await again.exec(shell="echo x > /etc/mine")).exit_code != 0
    about = await config_of(start.image)
    about["Labels"].pop("recipe", None)
    assert about["Labels"] == {"theirs": "yes", "ringfence.snapshot": "root"}
    assert about["Cmd"] == ["sh"]
    assert not about["Entrypoint"]
    assert about["WorkingDir"] == "/srv"
    assert about.get("Hostname", "") == ""
    made = (await supply.inspect(start.image)).id
    mine = await supply.images({"ringfence.snapshot": "root"})
    assert made in [stored.id for stored in mine]
    for arguments in ({"image": image}, {"backend": "process"}):
        with pytest.raises((InvalidSpecError, UnsupportedError), match=r"image|process"):
            await ringfence.open(**{"backend": "docker", "snapshot": first.digest, **arguments})
    assert await delete_snapshot(first.digest) > 0
    assert list(Store(state_directory / "store").walk()) == []
    mine = await supply.images({"ringfence.snapshot": "root"})
    assert made not in [stored.id for stored in mine]
    with pytest.raises(NotFoundError):
        await ringfence.open(backend="docker", snapshot=first.digest)


async def steps() -> list[str]:
    """The images that forks stand on."""
    async with Supply() as supply:
        return [stored.id for stored in await supply.images({"ringfence.step": None})]


async def test_forks_start_from_root_and_workspace_of_one_moment_and_leave_nothing(
    repository: Path, state_directory: Path, supply: Supply, image: str, kept: list[str]
) -> None:
    require_root()
    before = set(await steps())
    async with ringfence.open(**WRITABLE, image=image, repository=str(repository)) as sandbox:
        await shell(sandbox, "echo mine > /etc/mine; rm /bin/vi; echo more >> README.md")
        forks = await sandbox.fork(2)
        await shell(sandbox, "echo later > /etc/mine; echo later > README.md")
        for number, fork in enumerate(forks):
            assert await shell(fork, "cat /etc/mine README.md; ls /bin/vi || :") == (
                "mine\nA project.\nmore\n"
            )
            await shell(fork, f"echo {number} > /etc/own; echo {number} > own")
            changes = await fork.workspace.changes(since="parent")
            assert [change.path for change in changes.items] == ["own"]
        assert len(set(await steps()) - before) == 1
        await forks[0].delete()
        (below,) = await forks[1].fork(1)
        assert await shell(below, "cat /etc/own own /etc/mine") == "1\n1\nmine\n"
        digest = (await below.snapshot()).digest
        kept.append(digest)
        await forks[1].delete()
        await below.delete()
    assert set(await steps()) == before
    async with ringfence.open(**WRITABLE, snapshot=digest) as again:
        assert await shell(again, "cat /etc/own") == "1\n"
    about = await config_of(start_of(digest, snapshots()).image)
    assert about["Cmd"] == ["sh"]
    assert not about["Entrypoint"]
    assert not [name for name in about["Labels"] if name.startswith("ringfence.") and
                name != "ringfence.snapshot"]  # fmt: skip


async def test_a_fork_without_a_repository_outlives_its_parent_and_takes_its_image_along(
    state_directory: Path, supply: Supply, image: str
) -> None:
    before = set(await steps())
    async with ringfence.open(**WRITABLE, image=image) as sandbox:
        await shell(sandbox, "echo mine > /etc/mine")
        with pytest.raises(InvalidSpecError, match="above 0"):
            await sandbox.fork(0)
        (fork,) = await sandbox.fork(1)
    assert await shell(fork, "cat /etc/mine") == "mine\n"
    await fork.delete()
    assert set(await steps()) == before


async def test_a_failure_to_open_a_fork_leaves_no_image(
    repository: Path, state_directory: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(await steps())
    async with ringfence.open(**WRITABLE, image=image, repository=str(repository)) as sandbox:

        async def full(*_: object, **__: object) -> None:
            raise ResourceExhaustedError("no more", op="open")

        with monkeypatch.context() as patch:
            patch.setattr(DockerBackend, "create", full)
            with pytest.raises(ResourceExhaustedError, match="no more"):
                await sandbox.fork(2)
        assert await shell(sandbox, "echo goes on") == "goes on\n"
    assert set(await steps()) == before
    assert not [path for path in (state_directory / "workspaces").iterdir() if path.name[0] != "."]


@pytest.mark.parametrize("error", [asyncio.CancelledError, SandboxLostError("gone", op="resume")])
async def test_a_fork_that_ends_as_its_parent_is_thawed_leaves_no_image(
    state_directory: Path,
    image: str,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    """Cancelled, or because the parent is gone: the image is there by then."""
    before = set(await steps())
    real = control.resume

    async def resume(context: Context) -> None:
        await real(context)
        raise error

    async with ringfence.open(**WRITABLE, image=image) as sandbox:
        with monkeypatch.context() as patch:
            patch.setattr(control, "resume", resume)
            with pytest.raises((asyncio.CancelledError, SandboxLostError)):
                await sandbox.fork(1)
        assert await shell(sandbox, "echo goes on") == "goes on\n"
    assert set(await steps()) == before


async def test_what_a_dead_clients_fork_stood_on_goes_when_the_fork_is_looked_for(
    state_directory: Path, image: str
) -> None:
    before = set(await steps())
    async with ringfence.open(**WRITABLE, image=image) as sandbox:
        (fork,) = await sandbox.fork(1)
    fork._context.life.stop_watching()  # as its client does that was killed
    record = fork._context.instance.record
    backend = DockerBackend()
    await removal.remove(backend._connected(), record.native)
    assert set(await steps()) > before
    with pytest.raises(NotFoundError):
        await backend.attach(record)
    assert set(await steps()) == before
    await backend.aclose()
    await fork.delete()


KILLED = """
import asyncio, os, signal, sys
import ringfence

async def main():
    spec = {"security": {"read_only_root": False}, "profile": "permissive", "user": "0:0"}
    async with ringfence.open(backend="docker", image=sys.argv[1], **spec) as sandbox:
        await sandbox._context.instance.branch()
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_what_a_client_made_for_a_fork_goes_with_the_client_that_is_killed(
    state_directory: Path, image: str
) -> None:
    """Before anything stands on it, by the sweep that ends its sandbox; others' stay."""
    async with ringfence.open(**WRITABLE, image=image) as sandbox:
        assert isinstance(sandbox._context.instance, Branching)
        mine = await sandbox._context.instance.branch()
        before = set(await steps())
        client = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, image)
        assert await client.wait() == -signal.SIGKILL
        while set(await steps()) != before:
            await reap(Ledger.default())
            await asyncio.sleep(0.2)
        assert mine in before
        await sandbox._context.instance.drop(mine)


async def test_no_other_image_goes_with_a_sandbox_whatever_its_labels_say(
    state_directory: Path, image: str, tmp_path: Path
) -> None:
    name = f"ringfence-root-test/{secrets.token_hex(6)}:1"
    await build(tmp_path, name, f"FROM {image}\nLABEL ringfence.step=fork ringfence.base=x\n")
    try:
        async with ringfence.open(**WRITABLE, image=name):
            pass
        assert (await config_of(name))["Labels"]["ringfence.step"] == "fork"
    finally:
        await remove(name)


async def test_what_cannot_be_kept_is_refused(
    repository: Path, state_directory: Path, supply: Supply, image: str, tmp_path: Path
) -> None:
    name = f"ringfence-root-test/{secrets.token_hex(6)}:1"
    context = tmp_path / "volumes"
    context.mkdir()
    await build(context, name, f"FROM {image}\nVOLUME /data\n")
    try:
        async with ringfence.open(**WRITABLE, image=name) as sandbox:
            with pytest.raises(UnsupportedError, match="/data"):
                await sandbox.snapshot()
            with pytest.raises(UnsupportedError, match="/data"):
                await sandbox.fork(1)
    finally:
        await supply.remove(name)
    require_root()
    require_bwrap()
    async with ringfence.open(**{**WRITABLE, "backend": "process"}) as sandbox:
        with pytest.raises(UnsupportedError, match="root file system"):
            await sandbox.snapshot()
        with pytest.raises(UnsupportedError, match="root file system"):
            await sandbox.fork(1)
    assert Store(state_directory / "store").tags() == {}


async def test_a_snapshot_that_fails_at_its_end_leaves_no_layer(
    repository: Path, state_directory: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put: list[int] = []

    def fails(store: Store, *_: object) -> None:
        put.append(len(list(store.walk())))
        raise ValueError("no manifest")

    monkeypatch.setattr("ringfence.backends.docker.export.put_image", fails)
    async with ringfence.open(**WRITABLE, image=image, repository=str(repository)) as sandbox:
        with pytest.raises(ImageError, match="no manifest"):
            await sandbox.snapshot()
    assert put[0] > 1
    assert list(Store(state_directory / "store").walk()) == []


async def test_files_with_holes_do_not_fill_the_disk(
    repository: Path,
    state_directory: Path,
    supply: Supply,
    image: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    about = await supply._engine.get("info", "info")
    if "io.containerd.snapshotter.v1" in str(about["DriverStatus"]):
        pytest.skip("an Engine with containerd's image store does not count holes")
    full = os.statvfs_result((4096, 4096, 1000, 1000, 1000, 9, 9, 9, 0, 255))
    async with ringfence.open(**WRITABLE, image=image, repository=str(repository)) as sandbox:
        await shell(sandbox, "dd if=/dev/null of=/hole bs=1 seek=3000000")
        with monkeypatch.context() as patch:
            patch.setattr("os.statvfs", lambda _: full)
            with pytest.raises(ResourceExhaustedError, match="room"):
                await sandbox.snapshot()
        assert await shell(sandbox, "echo goes on") == "goes on\n"
    assert list(Store(state_directory / "store").walk()) == []


@pytest.mark.gvisor
async def test_gvisor_is_refused(state_directory: Path, image: str) -> None:
    require_gvisor()
    where = {**WRITABLE, "security": {"read_only_root": False, "runtime": "runsc"}}
    async with ringfence.open(**where, image=image) as sandbox:
        with pytest.raises(UnsupportedError, match="gVisor"):
            await sandbox.snapshot()
