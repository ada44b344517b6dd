"""A sandbox is the same to whom is in it, whether its keeper made it or a bubblewrap did."""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ringfence.backends.base import Bind
from ringfence.backends.process import ProcessBackend, command, trial
from ringfence.backends.process.machine import explain, said
from ringfence.errors import PolicyDeniedError
from ringfence.guest import build
from tests.integration.process.conftest import Opened, grant, image, new_id, opened
from tests.integration.process.kept import weak


@pytest.fixture(params=["keeper", "bubblewrap"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to begin, one after the other."""
    if request.param == "bubblewrap":
        monkeypatch.setattr(command, "begins", lambda *_: False)
    return str(request.param)


@pytest.fixture
def few_files() -> Iterator[int]:
    """A limit of open files below the one that this process could have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fewer = min(hard // 2, 1000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (fewer, hard))
    yield fewer
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("either")
async def test_commands_have_the_limit_of_open_files_that_their_client_has(
    opens: Opened, few_files: int
) -> None:
    async with opens() as sandbox:
        assert int((await sandbox.sh("ulimit -Sn")).stdout) == few_files


@pytest.mark.usefixtures("either")
async def test_what_is_covered_in_a_bound_tree_is_so_whatever_links_an_image_has_there(
    backend: ProcessBackend, tmp_path: Path, busybox: Path
) -> None:
    """The tree lies over them."""
    root = image(tmp_path / "image", busybox)
    (root / "work/b").mkdir(parents=True)
    (root / "work/a").symlink_to("b")
    for name in ("a", "b"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        (tmp_path / "tree" / name / "file").write_text(name)
        (tmp_path / "tree" / name / "file").chmod(0o644)
    (tmp_path / "cover").touch()
    binds = (
        Bind(str(tmp_path / "tree"), "/work", read_only=False),
        Bind(str(tmp_path / "cover"), "/work/a/file"),
    )
    async with opened(backend, image=str(root), binds=binds) as sandbox:
        assert (await sandbox.sh("busybox cat /work/a/file /work/b/file")).stdout == b"b"


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize(
    ("source", "target", "says"),
    [("file", "/etc", "Is a directory"), ("tree", "/etc/hosts", "Not a directory")],
)
async def test_a_file_where_a_directory_is_and_the_other_way_round_are_told(
    source: str, target: str, says: str, backend: ProcessBackend, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "tree").mkdir()
    spec, facts = await grant(backend)
    binds = (Bind(str(tmp_path / source), target),)
    instance = await backend.create(spec, new_id(), facts, binds=binds)
    try:
        assert says in str(await instance.not_started())
    finally:
        await instance.delete()


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("up", ["", "..", "../oldroot"], ids=["absolute", "above", "before"])
async def test_no_link_where_something_is_mounted_has_something_made_on_the_host(
    up: str, backend: ProcessBackend, tmp_path: Path, busybox: Path
) -> None:
    root = image(tmp_path / "image", busybox)
    there = tmp_path / "there"
    there.mkdir()
    (root / "out").symlink_to(f"{up}{there}")
    bind = Bind(str(busybox), "/out/file")
    await check_refused(backend, root, binds=(bind,))
    await check_refused(backend, root, security={"tmpfs": {"/out/made": 4096}})
    tree = Bind(str(root), "/tree", read_only=False)
    await check_refused(backend, root, binds=(tree, replace(bind, destination="/tree/out/file")))
    assert list(there.iterdir()) == []


async def check_refused(backend: ProcessBackend, root: Path, **wanted: Any) -> None:
    binds = wanted.pop("binds", ())
    spec, facts = await grant(backend, image=str(root), **wanted)
    with pytest.raises(PolicyDeniedError, match="/out' is a link to"):
        await backend.create(spec, new_id(), facts, binds=binds)


@pytest.mark.usefixtures("either")
async def test_everybody_may_pass_the_directories_above_what_is_bound(
    backend: ProcessBackend, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("read")
    (tmp_path / "file").chmod(0o644)
    for target in ("/tmp/a/b/file", "/a/b/file", "/run/a/b/file"):
        async with opened(backend, binds=(Bind(str(tmp_path / "file"), target),)) as sandbox:
            assert (await sandbox.run("/bin/cat", target)).stdout == b"read"


@pytest.mark.usefixtures("either")
async def test_each_of_many_binds_may_have_directories_of_its_own_above_it(
    backend: ProcessBackend, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("last")
    targets = [f"/{number}/a/b/c/d/e/f/g/h/file" for number in range(60)]
    binds = [Bind(str(tmp_path / "file"), target) for target in targets]
    async with opened(backend, binds=binds) as sandbox:
        assert (await sandbox.run("/bin/cat", targets[-1])).stdout == b"last"


@pytest.mark.usefixtures("either")
async def test_no_mount_gives_rights_or_devices(backend: ProcessBackend, tmp_path: Path) -> None:
    binds = (Bind(str(tmp_path), "/work", read_only=False),)
    for security in ({}, {"read_only_root": False}):
        async with opened(backend, binds=binds, profile="permissive", security=security) as sandbox:
            mounts = (await sandbox.sh("cat /proc/self/mountinfo")).stdout.decode()
            assert " /work rw," in mounts
            assert weak(mounts) == []


@pytest.mark.usefixtures("either")
async def test_only_root_may_write_to_a_root_that_can_be_written(opens: Opened) -> None:
    async with opens(profile="permissive", security={"read_only_root": False}) as sandbox:
        assert (await sandbox.sh("touch /x")).code != 0
        assert (await sandbox.sh("touch /x", user=0)).code == 0


@pytest.mark.usefixtures("either")
async def test_the_guest_has_nothing_that_it_does_not_need(opens: Opened) -> None:
    async with opens() as sandbox:
        proc = Path(f"/proc/{sandbox.instance.pid}")
        lines = (proc / "status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines)
        streams = {str((proc / "fd" / number).readlink()) for number in "01"}
    kinds = ("Prm", "Eff", "Inh", "Bnd", "Amb")
    assert [int(status[f"Cap{kind}"], 16) for kind in kinds] == [0xE0, 0xE0, 0, 0, 0]
    assert status["NoNewPrivs"] == "1"
    assert streams == {"/dev/null"}


@contextlib.contextmanager
def shared(directory: Path) -> Iterator[Path]:
    """Have what is mounted below `directory` be told to mounts that were made of it, as where an
    init system shares all of them."""
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    try:
        subprocess.run(["mount", "--make-shared", directory], check=True)
        yield directory
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", directory], check=True)


def mount_late(directory: Path) -> None:
    """A file system that can be written, with a device that everybody may use."""
    subprocess.run(["mount", "-t", "tmpfs", "late", directory], check=True)
    os.mknod(directory / "null", 0o20666, os.makedev(1, 3))
    (directory / "null").chmod(0o666)


async def test_what_the_host_mounts_below_what_is_shown_is_no_less_confined(
    either: str, opens: Opened, tmp_path: Path, busybox: Path
) -> None:
    with shared(image(tmp_path / "image", busybox)) as root:
        (root / "data/late").mkdir(parents=True)
        async with opens(image=str(root)) as first:
            mount_late(root / "data/late")
            async with opens(image=str(root)) as second:
                script = "echo 1 > /data/late/file || echo 1 > /data/late/null || echo refused"
                assert (await second.sh(script, user=0)).stdout == b"refused\n"
                seen = await second.sh("busybox grep ' /data/late ' /proc/self/mountinfo")
                assert b"ro,nosuid,nodev" in seen.stdout
            assert (await first.sh("busybox true")).code == 0
            seen = await first.sh("busybox grep -c ' /data/late ' /proc/self/mountinfo")
            assert either == "bubblewrap" or seen.stdout == b"0\n"


NAMESPACES = ("pid", "net", "ipc", "uts", "mnt", "cgroup")


@pytest.mark.parametrize(
    ("how", "kind"),
    [(how, kind) for how in ("", "--user 0:0") for kind in NAMESPACES] + [("--user 0:0", "user")],
)
def test_that_there_are_no_more_namespaces_is_told(how: str, kind: str, tmp_path: Path) -> None:
    limit = f"/proc/sys/user/max_{kind}_namespaces"
    script = f'echo 0 > {limit} && exec "$0" "$@"'
    limited = ["unshare", "--user", "--map-root-user", "--mount", "/bin/sh", "-c", script]
    (tmp_path / "kept").mkdir()
    keeper = [str(build.target()), "--keep", str(tmp_path / "kept"), "--begin", *how.split(), "--"]
    done = subprocess.run(
        [*limited, *keeper, "--dir", "/x", "--", "/bin/true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 125
    assert "no more namespaces" in explain(said(done.stderr))


@pytest.mark.usefixtures("either")
async def test_what_is_missing_in_what_is_bound_is_made_there_for_everybody_to_pass(
    backend: ProcessBackend, tmp_path: Path, busybox: Path
) -> None:
    """Also where an image has the place that it is bound on."""
    root = image(tmp_path / "image", busybox)
    (root / "work").mkdir()
    tree = tmp_path / "tree"
    (tree / "there").mkdir(parents=True)
    (tmp_path / "file").write_text("read")
    (tmp_path / "file").chmod(0o644)
    targets = ("/work/there/file", "/work/new/er/file")
    binds = [Bind(str(tmp_path / "file"), target) for target in targets]
    binds.append(Bind(str(tree), "/work", read_only=False))
    async with opened(backend, image=str(root), binds=binds) as sandbox:
        assert (await sandbox.run("/bin/busybox", "cat", *targets)).stdout == b"readread"
    assert (tree / "new/er").stat().st_mode & 0o777 == 0o755


async def test_a_tmpfs_may_lie_in_what_is_bound(backend: ProcessBackend, tmp_path: Path) -> None:
    kept = tmp_path / "tree/kept"
    kept.mkdir(parents=True)
    (kept / "file").touch()
    binds = (Bind(str(kept.parent), "/work"),)
    async with opened(backend, binds=binds, security={"tmpfs": {"/work/kept": 1 << 20}}) as sandbox:
        script = "test ! -e /work/kept/file && echo written > /work/kept/new && cat /work/kept/new"
        assert (await sandbox.sh(script)).stdout == b"written\n"
    assert [path.name for path in kept.iterdir()] == ["file"]


@pytest.mark.parametrize("may", [True, False])
async def test_whether_keepers_begin_sandboxes_here_is_told(
    backend: ProcessBackend, may: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trial, "succeeds", lambda *_, **__: may)
    told = await ProcessBackend(str(tmp_path)).info()
    assert told == {"Bubblewrap": shutil.which("bwrap"), "KeeperBegins": may}
