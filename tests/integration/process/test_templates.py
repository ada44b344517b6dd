"""Sandboxes begin with mounts that were made once for all of them, and share nothing they write."""

import asyncio
import contextlib
import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ringfence.backends.base import Bind
from ringfence.backends.process import ProcessBackend, templates
from ringfence.backends.process import known as knowing
from ringfence.backends.process import machine as machines
from ringfence.backends.process import root as roots
from ringfence.backends.process.known import known
from ringfence.errors import BackendUnavailableError, ResourceExhaustedError
from tests.conftest import missing
from tests.integration.process.conftest import Opened, grant, new_id, opened, processes
from tests.integration.process.kept import Kept

WAIT_SECONDS = 30.0


def mounts() -> list[str]:
    """The mount namespaces that this process holds open."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(entry.readlink())
            if target.startswith("mnt:["):
                found.append(target)
    return found


@pytest.fixture
def held() -> Callable[[], int]:
    """How many of them it holds, once what other loops held is given up."""
    for one in knowing._known.values():
        one.templates.close()
    return lambda: len(mounts())


async def until(fact: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not fact():
        assert time.monotonic() < end, "it did not come true"
        await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def _kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a start takes on a busy machine, its template is not given up meanwhile."""
    monkeypatch.setattr(templates, "_IDLE_SECONDS", 3600.0)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines of the templates that were made."""
    lines: list[list[str]] = []
    make = templates._made

    def counted(args: list[str]) -> templates.Template:
        lines.append(args)
        return make(args)

    monkeypatch.setattr(templates, "_made", counted)
    return lines


@pytest.fixture
def bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have a script stand for bubblewrap, which it is given as "$BWRAP"."""
    look = machines.look
    script = tmp_path / "bwrap"

    def stand(text: str) -> None:
        script.write_text(f"#!/bin/sh\nBWRAP=/usr/bin/bwrap\n{text}\n")
        script.chmod(0o755)
        monkeypatch.setattr(
            machines, "look", lambda *where: replace(look(*where), bwrap=str(script))
        )

    return stand


async def test_starts_beside_each_other_and_later_ones_share_a_template(
    opens: Opened, made: list[list[str]], held: Callable[[], int]
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(opens()) for _ in range(10)))
        await stack.enter_async_context(opens())
        assert len(made) == 1
        assert held() == 1


async def test_the_first_of_a_kind_has_a_bubblewrap_of_its_own(
    opens: Opened, made: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates.Templates, "at_once", False)
    async with opens():
        assert made == []
        async with opens(), opens():
            assert len(made) == 1


async def test_a_root_that_can_be_written_is_one_sandboxs_alone(opens: Opened) -> None:
    writable = partial(opens, profile="permissive", security={"read_only_root": False})
    async with writable() as first, writable() as second:
        assert (await first.sh("echo 1 > /mark && mkdir /srv/d", user=0)).code == 0
        assert (await second.sh("test ! -e /mark && rmdir /srv", user=0)).code == 0
        assert (await first.sh("cat /mark", user=0)).stdout == b"1\n"
    async with writable() as third:
        assert (await third.sh("test ! -e /mark && test ! -e /srv/d", user=0)).code == 0


async def test_what_is_bound_in_one_that_runs_is_no_directory_of_another(
    opens: Opened, tmp_path: Path
) -> None:
    shown = tmp_path / "shown"
    shown.mkdir(mode=0o755)
    (shown / "file").write_text("here")

    async def lives() -> None:
        """Nobody ends it meanwhile."""

    async with opens() as first, opens() as second:
        await first.instance.bind([Bind(str(shown), "/late/repository")], lives)
        assert (await first.sh("cat /late/repository/file")).stdout == b"here"
        assert (await second.sh("test ! -e /late")).code == 0


async def test_a_sandbox_sees_nothing_of_its_template_but_what_it_shows(opens: Opened) -> None:
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


def image(root: Path, busybox: Path) -> Path:
    (root / "bin").mkdir(parents=True)
    (root / "bin/busybox").write_bytes(busybox.read_bytes())
    (root / "bin/busybox").chmod(0o755)
    (root / "bin/sh").symlink_to("busybox")
    (root / "top").write_text("a file at the top")
    return root


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


async def test_a_template_that_is_given_up_while_it_is_made_starts_who_waited(
    opens: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = templates._made

    def slow(args: list[str]) -> templates.Template:
        time.sleep(0.2)
        return make(args)

    monkeypatch.setattr(templates, "_made", slow)
    monkeypatch.setattr(templates, "_IDLE_SECONDS", 0.02)
    async with opens() as sandbox:
        assert (await sandbox.sh("echo on")).stdout == b"on\n"


async def test_a_template_that_nothing_starts_with_is_given_up(
    opens: Opened, monkeypatch: pytest.MonkeyPatch, held: Callable[[], int]
) -> None:
    monkeypatch.setattr(templates, "_IDLE_SECONDS", 0.05)
    async with opens() as sandbox:
        await until(lambda: not held())
        assert (await sandbox.sh("echo on")).stdout == b"on\n"


async def test_an_old_template_is_made_anew(
    opens: Opened, made: list[list[str]], monkeypatch: pytest.MonkeyPatch, held: Callable[[], int]
) -> None:
    monkeypatch.setattr(templates, "_AGE_SECONDS", 0.0)
    async with opens(), opens():
        assert len(made) == 2
        assert held() == 1


async def test_of_many_roots_the_last_used_are_kept(
    opens: Opened,
    tmp_path: Path,
    busybox: Path,
    monkeypatch: pytest.MonkeyPatch,
    held: Callable[[], int],
) -> None:
    monkeypatch.setattr(templates, "_MOST", 2)
    for number in range(4):
        async with opens(image=str(image(tmp_path / str(number), busybox))) as sandbox:
            assert (await sandbox.sh("busybox true")).code == 0
    assert held() == 2


async def once(backend: ProcessBackend) -> None:
    async with opened(backend):
        """It started."""


def test_a_loop_that_is_closed_keeps_none_for_the_next(
    backend: ProcessBackend, state_directory: Path, held: Callable[[], int]
) -> None:
    for _ in range(2):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(once(backend))
        loop.close()
    assert held() == 1


def test_a_client_whose_loop_has_ended_pins_no_file_system(
    backend: ProcessBackend, state_directory: Path, held: Callable[[], int]
) -> None:
    asyncio.run(once(backend))
    assert held() == 0


async def test_who_is_cancelled_while_one_is_made_leaves_it_to_the_others(
    backend: ProcessBackend, made: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = templates._made
    begun, go_on = threading.Event(), threading.Event()

    def held_up(args: list[str]) -> templates.Template:
        begun.set()
        go_on.wait(WAIT_SECONDS)
        return make(args)

    monkeypatch.setattr(templates, "_made", held_up)
    spec, facts = await grant(backend)
    ids = [new_id(), new_id()]
    first, second = (asyncio.ensure_future(backend.create(spec, one, facts)) for one in ids)
    assert await asyncio.to_thread(begun.wait, WAIT_SECONDS)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go_on.set()
    instance = await second
    await instance.delete()
    assert len(made) == 1
    assert processes(ids[0]) == []


async def test_a_bubblewrap_that_cannot_mount_is_told_in_its_words(
    backend: ProcessBackend, bubblewrap: Callable[[str], None], state_directory: Path
) -> None:
    bubblewrap("echo 'bwrap: Creating new namespace failed: No space left on device' >&2; exit 1")
    spec, facts = await grant(backend)
    with pytest.raises(BackendUnavailableError, match="no more namespaces"):
        await backend.create(spec, new_id(), facts)
    assert list((state_directory / "process/sandboxes").resolve().glob("test-*")) == []
    bubblewrap('exec "$BWRAP" "$@"')
    known().forget(backend._ground())
    instance = await backend.create(spec, new_id(), facts)
    await instance.delete()


async def test_a_bubblewrap_that_never_answers_is_ended(
    backend: ProcessBackend, bubblewrap: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bubblewrap("exec sleep 98.76")
    monkeypatch.setattr(templates, "_ANSWER_SECONDS", 0.2)
    spec, facts = await grant(backend)
    with pytest.raises(BackendUnavailableError, match="no answer"):
        await backend.create(spec, new_id(), facts)
    assert processes("98.76") == []


async def test_what_is_said_before_the_answer_keeps_no_sandbox_from_starting(
    backend: ProcessBackend, bubblewrap: Callable[[str], None], held: Callable[[], int]
) -> None:
    bubblewrap("echo 'a warning' >&2; printf 'and another'; echo; exec \"$BWRAP\" \"$@\"")
    async with opened(backend) as sandbox:
        assert (await sandbox.sh("echo on")).stdout == b"on\n"
    assert held() == 1


async def test_a_holder_that_goes_on_is_ended(
    backend: ProcessBackend, bubblewrap: Callable[[str], None]
) -> None:
    """As where a process that was forked meanwhile has the other end of its standard input."""
    bubblewrap("echo $$; exec sleep 98.77")
    spec, facts = await grant(backend)
    async with asyncio.timeout(WAIT_SECONDS):
        instance = await backend.create(spec, new_id(), facts)
    await instance.delete()
    assert processes("98.77") == []


async def test_a_limit_of_open_files_that_is_too_low_is_told(
    backend: ProcessBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "LEAST_DESCRIPTOR", 2**30)
    spec, facts = await grant(backend)
    with pytest.raises(ResourceExhaustedError, match="ulimit -n"):
        await backend.create(spec, new_id(), facts)


async def test_a_bubblewrap_that_is_gone_is_told(
    backend: ProcessBackend, bubblewrap: Callable[[str], None], tmp_path: Path
) -> None:
    bubblewrap("exit 0")
    spec, facts = await grant(backend)
    (tmp_path / "bwrap").unlink()
    with pytest.raises(BackendUnavailableError, match="No such file"):
        await backend.create(spec, new_id(), facts)


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


@pytest.mark.parametrize("target", ["/workspace", "/.ringfence-of-others"])
async def test_a_keeper_ends_with_its_client_while_a_bind_hangs(
    target: str, kept: Kept, backend: ProcessBackend, hanging: Path
) -> None:
    found = await known().templates.get(backend._ground().machine, [])
    assert found is not None
    number = found.descriptor
    parts = ["--bind", "ro", str(hanging / "repository"), target, "--", "/bin/true"]
    process = kept.start(
        "--attached", "--template", str(number), "--", *parts,
        stdin=subprocess.PIPE, passed=(number,),
    )  # fmt: skip
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    await until(lambda: children.read_text().split())
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    await until(lambda: process.poll() is not None)
    assert not kept.home.path.exists()


@pytest.mark.parametrize("how", ["--template", "--user"])
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
        (["--dir", "/x", "--", "/bin/true"], "run /bin/true: No such"),
    ],
)
async def test_a_root_that_cannot_be_made_says_why_and_runs_nothing(
    parts: list[str], says: str, how: str, kept: Kept, backend: ProcessBackend
) -> None:
    ground = backend._ground()
    found = await known().templates.get(ground.machine, [])
    assert found is not None
    number = found.descriptor
    value = str(number) if how == "--template" else "0:0"
    kept.start(how, value, "--", *parts, passed=(number,))
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
    monkeypatch.setattr(templates.Templates, "at_once", False)
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
    found = await known().templates.get(backend._ground().machine, [])
    assert found is not None
    number = found.descriptor
    for turn in range(5):
        tree = tmp_path / f"{turn}"
        tree.mkdir()
        parts = ["--bind", "rw", str(tree), "/x", "--bind", "ro", "/usr", "/x" + "/d" * 300]
        all_kept = [Kept(tmp_path / f"{turn}-{one}") for one in range(4)]
        for kept in all_kept:
            line = ("--template", str(number), "--", *parts, "--", "/bin/true")
            kept.start(*line, passed=(number,))
        ends = [await asyncio.to_thread(kept.end) for kept in all_kept]
        assert ["run /bin/true: No such" in words for _, words in ends] == [True] * 4, ends
