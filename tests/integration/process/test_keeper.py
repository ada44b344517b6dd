"""The keeper makes, watches and removes, whatever ends first, and never leaves a process behind."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.backends.process.home import Home
from ringfence.guest import build
from tests.integration.process.conftest import processes
from tests.integration.process.kept import BWRAP, SYSTEM, WAIT_SECONDS, Kept, until


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A name for a cgroup in some hierarchy; what is left of it is removed."""
    top = Path("/sys/fs/cgroup")
    parent = next(
        (p for p in (top / "pids", top / "unified", top) if (p / "cgroup.procs").exists()), None
    )
    if parent is None:
        pytest.skip("no cgroups are mounted")
    path = parent / f"ringfence-test-{uuid.uuid4().hex[:8]}"
    yield path
    with contextlib.suppress(FileNotFoundError):
        path.rmdir()


@pytest.fixture
def unified() -> Iterator[Path]:
    """The same in a version 2 hierarchy."""
    top = Path("/sys/fs/cgroup")
    parent = next(
        (p for p in (top / "unified", top) if (p / "cgroup.subtree_control").exists()), None
    )
    if parent is None:
        pytest.skip("cgroup version 2 is not mounted")
    path = parent / f"ringfence-test-{uuid.uuid4().hex[:8]}"
    yield path
    with contextlib.suppress(FileNotFoundError):
        path.rmdir()


def test_it_hears_of_the_programs_end_though_who_started_it_ignores_that_of_children(
    kept: Kept,
) -> None:
    ignoring = ("env", "--ignore-signal=CHLD")
    kept.start("--", "/bin/sh", "-c", "exit 7", line=ignoring)
    assert kept.end() == (7, "")
    assert not kept.home.path.exists()


def test_a_passed_descriptor_is_the_first_process_alone(kept: Kept) -> None:
    """Neither the keeper nor bubblewrap's own process has it: it ends with whom it was made for."""
    ours, theirs = socket.socketpair()
    number = theirs.fileno()
    with ours, theirs:
        script = f"echo here >&{number}; read -r _ <&{number}; exec {number}>&-; exec sleep 1000"
        args = (*BWRAP, "/bin/bash", "-c", script)
        kept.start("--pass", str(number), "--", *args, passed=(number,))
        theirs.close()
        ours.settimeout(WAIT_SECONDS)
        assert ours.recv(100) == b"here\n"
        ours.sendall(b"go on\n")
        assert ours.recv(100) == b""
    assert kept.process is not None
    assert kept.process.poll() is None


def test_what_its_caller_had_open_besides_is_held_by_nobody(kept: Kept) -> None:
    """Such as the lock of a shell, `9>lock`: it would be held for as long as the sandbox lives."""
    with tempfile.TemporaryFile() as lock, tempfile.TemporaryFile() as passed:
        numbers = (lock.fileno(), passed.fileno())
        inode = os.fstat(lock.fileno()).st_ino
        kept.start("--pass", str(numbers[1]), "--", *BWRAP, "/bin/sleep", "1000", passed=numbers)
        until(kept.home.guest)
        assert kept.process is not None
        inside = kept.home.guest()
        until(lambda: Path(f"/proc/{inside}/comm").read_text() == "sleep\n")
        for pid in (kept.process.pid, inside):
            held = {entry.stat().st_ino for entry in Path(f"/proc/{pid}/fd").iterdir()}
            assert inode not in held


def test_the_last_to_leave_removes_what_all_were_in(kept: Kept, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    kept.start("--last", str(tmp_path), "--", "/bin/true")
    kept.end()
    assert other.is_dir()
    other.rmdir()
    last = Kept(tmp_path)
    last.start("--last", str(tmp_path), "--", "/bin/true")
    last.end()
    assert not tmp_path.exists()
    tmp_path.mkdir()


def test_files_beside_the_sandboxes_go_with_the_last_one_only(kept: Kept, tmp_path: Path) -> None:
    program = tmp_path / ".guest"
    program.touch()
    other = Kept(tmp_path)
    kept.start("--last", str(tmp_path), "--", "/bin/true")
    kept.end()
    assert program.exists()
    other.start("--last", str(tmp_path), "--", "/bin/true")
    other.end()
    assert not tmp_path.exists()
    tmp_path.mkdir()


def test_the_program_gets_the_counter_open_for_reading(kept: Kept, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("3")
    script = "read -r kills <&4; ! echo 9 2>/dev/null >&4 && exit $kills"
    kept.start("--counter", str(counter), "--", "/bin/sh", "-c", script)
    assert kept.end() == (3, "")
    assert counter.read_text() == "3"


def test_a_counter_that_is_not_there_starts_nothing(kept: Kept, tmp_path: Path) -> None:
    kept.start("--counter", str(tmp_path / "absent"), "--", "/bin/sh", "-c", "exit 7")
    code, words = kept.end()
    assert (code, "absent" in words) == (125, True)


def test_it_gives_on_the_programs_end_and_removes_all(kept: Kept, cgroup: Path) -> None:
    kept.start("--make", str(cgroup), "--inside", f"{cgroup}/cgroup.procs", "0",
               "--", "/bin/sh", "-c", "exit 7")  # fmt: skip
    assert kept.end() == (7, "")
    assert not cgroup.exists()
    assert not kept.home.path.exists()


def test_the_program_is_born_in_a_version_2_cgroup(kept: Kept, unified: Path) -> None:
    script = f"grep -q '^0::.*{unified.name}$' /proc/self/cgroup"
    kept.start("--make", str(unified), "--into", str(unified), "--", "/bin/sh", "-c", script)
    assert kept.end() == (0, "")
    assert not unified.exists()


@pytest.mark.parametrize("how", [(), ("--begin",), ("--begin", "--user", "0:0")], ids=len)
def test_the_program_is_first_of_a_session_with_no_input_and_no_signal_blocked(
    how: tuple[str, ...], kept: Kept
) -> None:
    parts = (*SYSTEM, "--") if how else ()
    kept.start("--attached", *how, "--", *parts, "/bin/sleep", "1000", stdin=subprocess.PIPE)
    until(kept.sleeps)
    proc = Path(f"/proc/{kept.child()}")
    assert (proc / "stat").read_text().rpartition(")")[2].split()[3] == proc.name
    assert "\nSigBlk:\t0000000000000000\n" in (proc / "status").read_text()
    assert (proc / "fd/0").stat().st_rdev == Path("/dev/null").stat().st_rdev
    kept.stop()


@pytest.mark.parametrize("how", [("--begin",), ("--begin", "--user", "0:0")], ids=len)
def test_what_is_born_in_a_version_2_cgroup_is_in_namespaces_of_its_own(
    how: tuple[str, ...], kept: Kept, unified: Path
) -> None:
    sleep = (*how, "--", *SYSTEM, "--", "/bin/sleep", "1000")
    kept.start("--make", str(unified), "--into", str(unified), *sleep)
    until(kept.sleeps)
    for kind in ("cgroup", "ipc", "mnt", "net", "pid", "uts"):
        inside = Path(f"/proc/{kept.child()}/ns/{kind}").readlink()
        assert inside != Path(f"/proc/self/ns/{kind}").readlink()
    kept.stop()
    assert not unified.exists()


def test_what_a_program_says_is_its_child_and_is_not_is_not_killed(kept: Kept) -> None:
    bystander = subprocess.Popen(["/bin/sleep", "1000"])
    try:
        script = f"echo '{{\"child-pid\": {bystander.pid}}}' >&3; exec sleep 1000"
        kept.start("--", "/bin/sh", "-c", script)
        until(kept.home.guest)
        kept.stop()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_it_holds_the_lock_while_it_lives_and_term_ends_everything(kept: Kept) -> None:
    guest = kept.sleeping()
    assert kept.process is not None
    assert kept.home.keeper() == kept.process.pid
    kept.process.send_signal(signal.SIGHUP)
    kept.process.send_signal(signal.SIGINT)
    os.kill(guest, 0)
    kept.process.terminate()
    assert kept.end()[0] == 128 + signal.SIGKILL
    assert not Path(f"/proc/{guest}").exists()
    assert not kept.home.path.exists()


@pytest.mark.parametrize("how", [(), ("--begin",), ("--begin", "--user", "1000:1000")], ids=len)
def test_its_child_ends_with_a_keeper_that_was_killed_before_it_could_hear_of_that(
    how: tuple[str, ...], kept: Kept, unified: Path
) -> None:
    """It is born in a cgroup that stands still."""
    frozen = unified / "cgroup.freeze"
    procs, parts = unified / "cgroup.procs", (*SYSTEM, "--") if how else ()
    keeper = kept.start(
        "--make", str(unified), "--write", str(frozen), "1", "--into", str(unified), *how,
        "--", *parts, "/bin/sleep", "1000",
    )  # fmt: skip
    until(lambda: procs.exists() and procs.read_text())
    keeper.kill()
    keeper.wait(WAIT_SECONDS)
    frozen.write_text("0")
    until(lambda: "populated 0" in (unified / "cgroup.events").read_text())


def test_the_end_of_its_input_ends_an_attached_sandbox(kept: Kept) -> None:
    guest = kept.sleeping("--attached", stdin=subprocess.PIPE)
    assert kept.process is not None
    assert kept.process.stdin is not None
    kept.process.stdin.close()
    kept.process.stdin = None
    kept.end()
    assert not Path(f"/proc/{guest}").exists()


def test_bubblewraps_own_death_does_not_free_what_it_started(kept: Kept) -> None:
    guest = kept.sleeping()
    parent = int(Path(f"/proc/{guest}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    kept.end()
    assert not Path(f"/proc/{guest}").exists()
    assert not kept.home.path.exists()


def test_a_kill_before_the_sandbox_exists_ends_it_too(kept: Kept) -> None:
    kept.start("--", "/bin/sh", "-c", f"sleep 1000 & sleep 1000; : {kept.home.id}")
    until(lambda: processes(f": {kept.home.id}"))
    assert kept.process is not None
    kept.process.terminate()
    kept.end()
    assert processes(f": {kept.home.id}") == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--write", "/nowhere/file", "1", "--", "/bin/true"], "write /nowhere/file: No such"),
        (["--inside", "/nowhere/file", "1", "--", "/bin/true"], "join /nowhere/file: No such"),
        (["--into", "/nowhere", "--", "/bin/true"], "open /nowhere: No such"),
        (["--", "/nowhere/program"], "run /nowhere/program: No such"),
        (["--unknown", "x", "y", "--", "/bin/true"], "keep --unknown: Invalid"),
        (["--attached"], "keep --: Invalid"),
    ],
)
def test_a_start_that_fails_says_why_and_leaves_nothing(
    args: list[str], says: str, kept: Kept, cgroup: Path
) -> None:
    kept.start("--make", str(cgroup), *args)
    code, errors = kept.end()
    assert code == 125
    assert says in errors
    assert not cgroup.exists()
    assert not kept.home.path.exists()


def test_its_memory_stays_closed_to_its_own_user_after_the_start(kept: Kept) -> None:
    """It shares its memory with the program until that runs, which opens its own files of /proc."""
    nobody = 65534
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        program = Path(shutil.copy(build.target(), f"{place}/guest"))
        program.chmod(0o711)
        home = Home(Path(place, "home"))
        home.make({}, "/bin/true")
        os.chown(home.path, nobody, nobody)
        keeper = subprocess.Popen(
            [program, "--keep", home.path,
             "--inside", "/proc/self/oom_score_adj", "10", "--", "/bin/sleep", "1000"],
            stdin=subprocess.DEVNULL, user=nobody, group=nobody,
        )  # fmt: skip
        try:
            children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children")
            until(lambda: children.read_text().split())
            child = children.read_text().split()[0]
            until(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
            until(lambda: Path(f"/proc/{keeper.pid}/maps").stat().st_uid == 0)
        finally:
            keeper.terminate()
            keeper.wait(WAIT_SECONDS)


def test_a_directory_has_one_keeper(kept: Kept) -> None:
    kept.sleeping()
    second = subprocess.run(
        [build.target(), "--keep", kept.home.path, "--", "/bin/true"],
        capture_output=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert second.returncode == 125
    assert b"lock" in second.stderr
    assert kept.home.path.exists()
