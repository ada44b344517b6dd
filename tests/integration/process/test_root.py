"""The root that a keeper gives a sandbox: its own, with what of the host is shown."""

import asyncio
import ctypes
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from ringfence.backends import late_binds
from ringfence.backends.base import Bind
from ringfence.backends.process import ProcessBackend
from ringfence.backends.process import root as roots
from ringfence.guest import build
from tests.conftest import missing
from tests.integration.process.conftest import Opened, grant, image, new_id, opened
from tests.integration.process.kept import SYSTEM, Kept
from tests.integration.process.kept import until as wait_until

WAIT_SECONDS = 30.0


async def until(fact: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not fact():
        assert time.monotonic() < end, "it did not come true"
        await asyncio.sleep(0.02)


async def test_a_root_that_can_be_written_is_one_sandboxs_alone(opens: Opened) -> None:
    writable = partial(opens, profile="permissive", security={"read_only_root": False})
    async with writable() as first, writable() as second:
        assert (await first.sh("echo 1 > /mark && mkdir /srv/d", user=0)).code == 0
        assert (await second.sh("test ! -e /mark && rmdir /srv", user=0)).code == 0
        assert (await first.sh("cat /mark", user=0)).stdout == b"1\n"
    async with writable() as third:
        assert (await third.sh("test ! -e /mark && test ! -e /srv/d", user=0)).code == 0


async def test_what_is_bound_in_one_that_runs_is_passed_whatever_the_umask_and_no_directory_of_another(
    opens: Opened, tmp_path: Path
) -> None:
    shown = tmp_path / "shown"
    shown.mkdir(mode=0o755)
    (shown / "file").write_text("here")

    async def lives() -> None:
        """Nobody ends it meanwhile."""

    async with opens() as first, opens() as second:
        before = os.umask(0o077)
        try:
            await first.instance.bind([Bind(str(shown), "/late/repository")], lives)
        finally:
            os.umask(before)
        assert (await first.sh("cat /late/repository/file")).stdout == b"here"
        assert (await second.sh("test ! -e /late")).code == 0


async def test_a_sandbox_sees_nothing_of_the_hosts_mounts_but_what_it_shows(opens: Opened) -> None:
    async with opens() as sandbox:
        told = (await sandbox.sh("cut -d' ' -f5 /proc/self/mountinfo")).stdout
        places = told.decode().split()
        assert places.count("/") == 1
        assert {"/usr", "/proc", "/tmp"} <= set(places)
        assert "/.ringfence/guest" not in places


async def test_files_and_directories_are_bound_with_the_directories_above_them(
    backend: ProcessBackend, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "file").write_text("text")
    binds = (
        Bind(str(tmp_path / "file"), "/deep/er/file"),
        Bind(str(tmp_path / "tree"), "/deep/tree", read_only=False),
    )
    async with opened(backend, binds=binds) as sandbox:
        assert (await sandbox.sh("cat /deep/er/file; stat -c %a /deep /deep/er")).stdout == (
            b"text755\n755\n"
        )
        assert (await sandbox.sh("echo 1 > /deep/tree/new", user=0)).code == 0
        assert (await sandbox.sh("echo 1 > /deep/er/file", user=0)).code != 0
    assert (tmp_path / "tree/new").read_text() == "1\n"


async def test_a_mount_point_that_an_image_lacks_below_what_is_its_own_is_told(
    backend: ProcessBackend, tmp_path: Path, busybox: Path
) -> None:
    root = image(tmp_path / "image", busybox)
    binds = (Bind(str(tmp_path), "/bin/absent"),)
    spec, facts = await grant(backend, image=str(root))
    instance = await backend.create(spec, new_id(), facts, binds=binds)
    try:
        told = await instance.not_started()
        assert "bind /bin/absent: Read-only file system" in str(told)
    finally:
        await instance.delete()


async def test_an_image_whose_directories_were_replaced_is_shown_as_it_is_now(
    opens: Opened, tmp_path: Path, busybox: Path
) -> None:
    root = image(tmp_path / "image", busybox)
    async with opens(image=str(root)) as sandbox:
        assert (await sandbox.sh("busybox cat /top")).stdout == b"a file at the top"
        assert (await sandbox.sh("test ! -e /bin/new")).code == 0
        (root / "bin").rename(tmp_path / "old")
        image(root, busybox)
        (root / "bin/new").touch()
        async with opens(image=str(root)) as other:
            assert (await other.sh("test -e /bin/new")).code == 0


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Path]:
    """A directory whose file system answers nobody."""
    place = tmp_path / "hanging"
    place.mkdir()
    try:
        server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        missing(f"/dev/fuse cannot be opened: {error.strerror}")
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    assert libc.mount(b"fuse", bytes(place), b"fuse", 0, options) == 0, ctypes.get_errno()
    yield place
    libc.umount2(bytes(place), 2)
    os.close(server)


async def child_that_hangs(kept: Kept, hanging: Path, target: str) -> Path:
    """The entry in /proc of a keeper's child that asks that file system for a part of an image."""
    part = roots.Entry("bind", target, str(hanging / "part")).part()
    process = kept.start(
        "--attached", "--begin", "--", *part, "--", "/bin/true", stdin=subprocess.PIPE
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    await until(lambda: children.read_text().split())
    return Path("/proc", children.read_text().split()[0])  # noqa: ASYNC240 - no file of a disk


@pytest.mark.parametrize("target", ["/workspace", "/.ringfence-of-others"])
async def test_a_keeper_ends_with_its_client_while_a_part_hangs(
    target: str, kept: Kept, backend: ProcessBackend, hanging: Path
) -> None:
    await child_that_hangs(kept, hanging, target)
    process = kept.process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    await until(lambda: process.poll() is not None)
    assert not kept.home.path.exists()


async def test_a_child_that_hangs_ends_with_a_keeper_that_is_killed(
    kept: Kept, backend: ProcessBackend, hanging: Path
) -> None:
    child = await child_that_hangs(kept, hanging, "/part")
    process = kept.process
    assert process is not None
    process.kill()
    await until(lambda: not child.exists())


def chroot(directory: Path, *, mounted: bool) -> list[str]:
    """The start of a command line that runs in a chroot with all of the host. mounted: of which the
    root is a mount; else a directory."""
    script = f"mount --rbind / {directory}"
    if not mounted:
        script = f"""
            cd {directory}
            for name in /*; do
                if [ -L $name ]; then cp -P $name .; continue; fi
                if [ -d $name ]; then mkdir .$name; else : > .$name; fi
                mount --rbind $name .$name
            done"""
    line = f'{script}\nexec chroot {directory} "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", line, "sh"]


@pytest.mark.parametrize("mounted", [True, False], ids=["mounted", "directory"])
async def test_nothing_of_the_hosts_is_in_the_mounts_of_a_sandbox_begun_in_a_chroot(
    mounted: bool, kept: Kept, backend: ProcessBackend, tmp_path: Path
) -> None:
    place = tmp_path / "chroot"
    place.mkdir()
    kept.start(
        "--begin", "--", *SYSTEM, "--", "/bin/sleep", "1000", line=chroot(place, mounted=mounted)
    )
    await until(kept.sleeps)
    enter = ["nsenter", "--target", str(kept.home.guest()), "--mount", "ls", "/"]
    done = await asyncio.to_thread(
        subprocess.run, enter, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["bin", "lib", "lib64", "usr"]


def test_what_is_shown_of_a_chroot_is_what_is_there(
    kept: Kept, backend: ProcessBackend, tmp_path: Path
) -> None:
    place = tmp_path / "chroot"
    place.mkdir()
    (place / "only").write_text("here")
    parts = (*SYSTEM, "--bind", "ro", "/only", "/only")
    line = chroot(place, mounted=False)
    kept.start("--begin", "--", *parts, "--", "/bin/grep", "-q", "here", "/only", line=line)
    assert kept.end() == (0, "")


@pytest.mark.parametrize("how", [("--begin",), ("--begin", "--user", "0:0")], ids=len)
def test_nothing_is_mounted_on_a_host_that_shares_all_of_its_mounts(
    how: tuple[str, ...], kept: Kept, backend: ProcessBackend
) -> None:
    """As an init system has it."""
    script = """
        before=$(cat /proc/self/mountinfo)
        "$@" || exit
        test "$before" = "$(cat /proc/self/mountinfo)"
    """
    line = ["unshare", "--mount", "--propagation", "shared", "sh", "-c", script, "sh"]
    kept.start(*how, "--", *SYSTEM, "--", "/bin/true", line=line)
    assert kept.end() == (0, "")


def test_what_is_bound_late_comes_to_a_sandbox_that_bubblewrap_began_in_a_chroot(
    kept: Kept, backend: ProcessBackend, tmp_path: Path
) -> None:
    place, tree = tmp_path / "chroot", tmp_path / "tree"
    place.mkdir()
    tree.mkdir()
    (tree / "file").touch()
    pid = kept.sleeping(line=chroot(place, mounted=True))
    wait_until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")

    async def lives() -> None:
        """Nobody ends it meanwhile."""

    target = f"/mnt/{new_id()}"
    try:
        asyncio.run(late_binds.bind(pid, [Bind(str(tree), target)], lives, below=True))
        assert Path(f"/proc/{pid}/root{target}/file").exists()
    finally:
        Path(target).rmdir()


def test_everybody_may_pass_what_is_made_whatever_umask_a_client_has(
    kept: Kept, backend: ProcessBackend
) -> None:
    line = ["sh", "-c", 'umask 077; exec "$@"', "sh"]
    parts = (*SYSTEM, "--dir", "/made", "--bind", "ro", "/usr", "/new/er/usr")
    script = 'test "$(stat -c %a /made /new /new/er | sort -u)" = 755'
    kept.start("--begin", "--", *parts, "--", "/bin/sh", "-c", script, line=line)
    assert kept.end() == (0, "")


def test_a_client_with_a_low_limit_of_open_files_may_have_more_shown_and_the_program_its_limit(
    kept: Kept, backend: ProcessBackend
) -> None:
    line = ["sh", "-c", 'ulimit -Sn 64; exec "$@"', "sh"]
    parts = [*SYSTEM]
    for number in range(100):
        parts += ["--bind", "ro", "/usr", f"/{number}"]
    script = 'test -d /99/bin && test "$(ulimit -Sn)" = 64'
    kept.start("--begin", "--", *parts, "--", "/bin/sh", "-c", script, line=line)
    assert kept.end() == (0, "")


@pytest.mark.parametrize("option", ["--mask", "--read-only", "--seal", "--noexec"])
def test_a_cover_that_fails_for_another_reason_than_that_nothing_is_there_ends_the_start(
    option: str, kept: Kept, backend: ProcessBackend
) -> None:
    parts = (*SYSTEM, "--shown", str(build.target()), "/guest")
    guest = ("/guest", "--enter", option, "/bin/true/file", "--", "--help")
    kept.start("--begin", "--", *parts, "--", *guest)
    assert kept.end() == (125, f"{option[2:]} /bin/true/file: Not a directory\n")


@pytest.mark.parametrize("how", [("--begin",), ("--begin", "--user", "0:0")], ids=len)
@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (["--odd", "/x", "--", "/bin/true"], "part --odd: Invalid"),
        (["--link", "/x"], "part --link: Invalid"),
        (["--dir", "/x"], "part --: Invalid"),
        (["--dir", "/x", "--"], "part --: Invalid"),
        (["--dir", "/x"] * 1100, "part too many: Invalid"),
        (["--bind", "ro", "/absent", "/x", "--", "/bin/true"], "bind /absent: No such"),
        (["--shown", "/absent", "/absent", "--", "/bin/true"], "shown /absent: No such"),
        (["--dir", "/a/b", "--", "/bin/true"], "dir /a/b: No such"),
        (["--dir", "/x", "--link", "y", "/x", "--", "/bin/true"], "link /x: File exists"),
        (
            ["--link", "/y", "/x", "--bind", "ro", "/usr", "/x", "--", "/bin/true"],
            "bind /x: Symbolic link loop",
        ),
        (
            ["--bind", "ro", "/usr", f"/{'x' * 256}/y", "--", "/bin/true"],
            f"bind /{'x' * 256}/y: Filename too long",
        ),
        (["--bind", "ro", "/usr", "/x" * 2048, "--", "/bin/true"], "/x: Filename too long"),
        (
            ["--dir", "/x", "--bind", "ro", "/usr", "/x/../y", "--", "/bin/true"],
            "bind /x/../y: Cross-device link",
        ),
        (
            ["--dir", "/x", "--bind", "ro", "/usr", "/x/..", "--", "/bin/true"],
            "bind /x/..: Cross-device link",
        ),
        (["--dir", "/x", "--", "/bin/true"], "run /bin/true: No such"),
    ],
)
async def test_a_root_that_cannot_be_made_says_why_and_runs_nothing(
    parts: list[str], says: str, how: tuple[str, ...], kept: Kept
) -> None:
    kept.start(*how, "--", *parts)
    code, words = await asyncio.to_thread(kept.end)
    assert (code, says in words) == (125, True), words
    assert not kept.home.path.exists()


async def test_a_link_that_is_put_on_the_way_to_a_cover_meanwhile_is_not_followed(
    backend: ProcessBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another sandbox that may write to the same repository, after it was looked at."""
    repository, elsewhere, cover = (tmp_path / name for name in ("repository", "host", "cover"))
    repository.mkdir()
    elsewhere.mkdir()
    cover.touch()
    (repository / "a").symlink_to(f"../../oldroot{elsewhere}")  # where bubblewrap has the host
    monkeypatch.setattr(roots, "check_places", lambda *_: None)
    binds = (
        Bind(str(repository), "/workspace", read_only=False),
        Bind(str(cover), "/workspace/a/.env"),
    )
    spec, facts = await grant(backend)
    instance = await backend.create(spec, new_id(), facts, binds=binds)
    try:
        assert "bind /workspace/a/.env: Symbolic link loop" in str(await instance.not_started())
    finally:
        await instance.delete()
    assert list(elsewhere.iterdir()) == []


async def test_what_is_bound_in_something_bound_is_made_there_where_it_is_missing(
    backend: ProcessBackend, tmp_path: Path
) -> None:
    repository, cover = tmp_path / "repository", tmp_path / "cover"
    repository.mkdir()
    cover.touch()
    (repository / "b").mkdir()
    (repository / "b/.env").write_text("secret")
    binds = (
        Bind(str(cover), "/workspace/b/.env"),
        Bind(str(cover), "/workspace/new/er/file"),
        Bind(str(repository), "/workspace", read_only=False),
    )
    async with opened(backend, binds=binds) as sandbox:
        assert (await sandbox.sh("cat /workspace/b/.env", user=0)).stdout == b""
        assert (await sandbox.sh("test -f /workspace/new/er/file", user=0)).code == 0
    assert (repository / "b/.env").read_text() == "secret"
    assert (repository / "new/er/file").is_file()


async def test_sandboxes_that_start_together_make_the_same_directories_in_what_is_bound(
    backend: ProcessBackend, tmp_path: Path
) -> None:
    for turn in range(5):
        tree = tmp_path / f"{turn}"
        tree.mkdir()
        parts = ["--bind", "rw", str(tree), "/x", "--bind", "ro", "/usr", "/x" + "/d" * 300]
        all_kept = [Kept(tmp_path) for _ in range(4)]
        for kept in all_kept:
            kept.start("--begin", "--", *parts, "--", "/bin/true")
        ends = [await asyncio.to_thread(kept.end) for kept in all_kept]
        assert ["run /bin/true: No such" in words for _, words in ends] == [True] * 4, ends
