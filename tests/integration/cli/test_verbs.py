"""The command line on real sandboxes: codes, streams, Ctrl-C, and nothing left behind."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import process_options, require_cgroups, require_docker
from tests.images import BUSYBOX, DEBIAN

RINGFENCE = [str(Path(sys.executable).with_name("ringfence"))]


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("process", marks=pytest.mark.process),
    ]
)
def place(request: pytest.FixtureRequest, state_directory: Path) -> list[str]:
    """Options that choose a backend."""
    if request.param == "docker":
        require_docker(DEBIAN)
        return ["--image", DEBIAN]
    return process_options()


def needs_cgroups(place: list[str]) -> None:
    """Skip (CI: fail) where the process backend has none."""
    if "process" in place:
        require_cgroups()


def ringfence(*args: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    source = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run(
        [*RINGFENCE, *args], capture_output=True, timeout=120, check=False, **source
    )  # type: ignore[call-overload,no-any-return]


def listed() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(ringfence("ps", "--json").stdout)
    return found


@pytest.fixture
def created(place: list[str]) -> Iterator[str]:
    """A detached sandbox, gone afterwards."""
    done = ringfence("create", *place, "--lifetime", "10m", "--label", "test=cli")
    assert done.returncode == 0, done.stderr
    name = done.stdout.decode().strip()
    yield name
    assert ringfence("rm", name).returncode == 0
    assert [one for one in listed() if one["id"] == name] == []


def test_run_passes_streams_and_the_exit_code_on(place: list[str]) -> None:
    done = ringfence("run", *place, "--", "sh", "-c", "cat; echo err >&2; exit 3", stdin=b"in\0put")
    assert (done.stdout, done.stderr, done.returncode) == (b"in\0put", b"err\n", 3)
    assert listed() == []


def test_a_commands_whole_family_is_measured_by_choice(place: list[str]) -> None:
    done = ringfence("run", *place, "--cgroup", "--json", "--", "sh", "-c", "sleep 0.01 & wait")
    if done.returncode == 125:
        assert b"cgroup" in done.stderr
        return
    document = json.loads(done.stdout)
    assert document["result"]["usage"]["cgroup"]["cpu_seconds"] > 0
    plain = json.loads(ringfence("run", *place, "--json", "--", "true").stdout)
    assert plain["result"]["usage"]["cgroup"] is None


def test_a_timeout_is_124_and_a_missing_program_127(place: list[str]) -> None:
    late = ringfence("run", *place, "--timeout", "500ms", "--", "sleep", "60")
    assert late.returncode == 124
    assert b"timeout" in late.stderr
    absent = ringfence("run", *place, "--", "no-such-program")
    assert absent.returncode == 127
    assert b"no-such-program" in absent.stderr


def test_out_of_memory_is_137(place: list[str]) -> None:
    needs_cgroups(place)
    hog = "x = bytearray(400 << 20)"
    done = ringfence("run", *place, "--memory", "64MiB", "--", "python3", "-c", hog)
    assert done.returncode == 137
    assert b"oom_killed" in done.stderr


def test_run_json_is_one_document_with_result_usage_and_receipt(place: list[str]) -> None:
    done = ringfence("run", *place, "--json", "--", "sh", "-c", "printf hi; exit 2")
    data = json.loads(done.stdout)
    assert data["result"]["stdout"] == "hi"
    assert data["result"]["exit_code"] == done.returncode == 2
    assert data["receipt"]["controls"]
    if "--allow-degraded" not in place:
        assert data["usage"]["source"] == "cgroup"


def test_nothing_of_our_environment_reaches_the_command(
    place: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RF_SECRET_OF_THE_HOST", "1")
    done = ringfence("run", *place, "--env", "GIVEN=2", "--", "env")
    assert b"GIVEN=2" in done.stdout
    assert b"RF_SECRET" not in done.stdout


def test_a_repository_appears_and_the_original_never_changes(
    place: list[str], tmp_path: Path
) -> None:
    source = tmp_path / "repository"
    source.mkdir()
    (source / "a.txt").write_text("one\n")
    done = ringfence(
        "run",
        *place,
        "--repo",
        str(source),
        "--",
        "sh",
        "-c",
        "cat a.txt; echo two > a.txt; cat a.txt",
    )
    assert (done.stdout, done.returncode) == (b"one\ntwo\n", 0), done.stderr
    assert (source / "a.txt").read_text() == "one\n"


def test_output_that_nobody_reads_ends_the_command(place: list[str]) -> None:
    """141, as a shell shows it of any program whose pipe was closed."""
    process = subprocess.Popen(
        [*RINGFENCE, "run", *place, "--", "yes"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    process.stdout = None
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (141, b"")
    assert listed() == []


def test_ctrl_c_goes_to_the_command_and_leaves_nothing(place: list[str]) -> None:
    script = "trap 'echo interrupted; exit 7' INT; echo ready; while :; do sleep 0.1; done"
    process = subprocess.Popen(
        [*RINGFENCE, "run", *place, "--", "sh", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == (b"interrupted\n", 7)
    assert listed() == []


def test_a_created_sandbox_is_used_by_other_processes_until_it_is_removed(created: str) -> None:
    assert ringfence("exec", created, "--", "sh", "-c", "echo kept > /tmp/f").returncode == 0
    assert ringfence("exec", created[:6], "--", "cat", "/tmp/f").stdout == b"kept\n"
    [info] = [one for one in listed() if one["id"] == created]
    assert (info["state"], info["labels"]) == ("running", {"test": "cli"})
    assert ringfence("exec", created, "--", "sh", "-c", "exit 9").returncode == 9
    assert json.loads(ringfence("inspect", created, "--json").stdout)["receipt"]["controls"]
    assert ringfence("health", created).returncode == 0
    assert ringfence("extend", created, "20m").returncode == 0


def test_a_created_sandbox_is_measured(place: list[str], created: str) -> None:
    needs_cgroups(place)
    usage = json.loads(ringfence("stats", created, "--once", "--json").stdout)
    assert usage["id"] == created
    assert usage["memory"] > 0


def test_a_sandbox_whose_id_cannot_be_told_is_not_left(place: list[str]) -> None:
    """As where the disk is full that it is written to."""
    line = [*RINGFENCE, "create", *place, "--lifetime", "10m"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, timeout=120, check=False)
    assert done.returncode == 125
    assert b"No space left on device" in done.stderr
    assert listed() == []


def test_files_go_in_and_come_out(created: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "f").write_bytes(b"\0data")
    assert ringfence("cp", str(tree), f"{created}:/tmp/tree").returncode == 0
    assert ringfence("ls", f"{created}:/tmp/tree/sub").stdout == b"f\n"
    assert ringfence("cp", f"{created}:/tmp/tree", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back" / "sub" / "f").read_bytes() == b"\0data"


def test_cp_puts_it_where_cp_would(created: str, tmp_path: Path) -> None:
    """Below a directory that is there, on either side; of DIR/. the content."""
    tree, out = tmp_path / "tree", tmp_path / "out"
    tree.mkdir()
    out.mkdir()
    (tree / "f").touch()
    for source in (tree, f"{tree}/.", tree / "f"):
        assert ringfence("cp", str(source), f"{created}:/tmp").returncode == 0
    found = ringfence("exec", created, "--", "find", "/tmp", "-mindepth", "1").stdout.split()
    assert sorted(found) == [b"/tmp/f", b"/tmp/tree", b"/tmp/tree/f"]
    assert ringfence("cp", f"{created}:/tmp/tree", str(out)).returncode == 0
    assert (out / "tree" / "f").is_file()


def test_ls_json_is_one_document_with_every_field(created: str) -> None:
    written = ringfence("exec", created, "--", "sh", "-c", "printf 12 > /tmp/f; chmod 640 /tmp/f")
    assert written.returncode == 0
    [entry] = json.loads(ringfence("ls", "--json", f"{created}:/tmp").stdout)
    assert (entry["path"], entry["kind"], entry["size"], entry["mode"]) == (
        "/tmp/f",
        "file",
        2,
        0o640,
    )


def test_pause_freezes_and_resume_goes_on(place: list[str], created: str) -> None:
    needs_cgroups(place)
    assert ringfence("pause", created).returncode == 0
    assert next(one for one in listed() if one["id"] == created)["state"] == "paused"
    assert ringfence("resume", created).returncode == 0
    assert ringfence("exec", created, "--", "true").returncode == 0


def test_events_are_followed_while_others_use_the_sandbox(place: list[str], created: str) -> None:
    """Who follows does not hold it: others pause, resume, execute and remove it meanwhile."""
    needs_cgroups(place)
    with subprocess.Popen([*RINGFENCE, "events", created], stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        for verb, event in (("pause", "Paused"), ("resume", "Resumed"), ("rm", "Deleted")):
            assert ringfence(verb, created).returncode == 0
            told = json.loads(following.stdout.readline())
            assert (told["event"], told["sandbox_id"]) == (event, created)
            if verb == "resume":
                assert ringfence("exec", created, "--", "true").returncode == 0
        assert following.wait(60) == 0


def test_a_shell_is_a_real_terminal(created: str) -> None:
    """As large as ours, and with colours."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (33, 99))
    process = subprocess.Popen(
        [*RINGFENCE, "shell", created, "--", "sh"], stdin=slave, stdout=slave, stderr=slave, close_fds=True,
        start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    os.write(master, b"tty && stty size && printf '\\033[31mred' && exit 5\n")
    seen = read_all(master)
    assert process.wait(60) == 5
    assert b"/dev/pts/" in seen or b"/dev/" in seen
    assert b"not a tty" not in seen
    assert b"33 99" in seen
    assert b"\x1b[31mred" in seen


def test_a_program_that_a_shell_does_not_find_is_127(created: str) -> None:
    master, slave = pty.openpty()
    words = [*RINGFENCE, "shell", created, "--", "no-such-program"]
    process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen = read_all(master)
    assert process.wait(60) == 127
    assert b"no-such-program: not found" in seen


def read_all(master: int) -> bytes:
    seen = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 1)[0]:
            continue
        try:
            chunk = os.read(master, 65536)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    os.close(master)
    return seen


@pytest.mark.docker
def test_an_unknown_image_is_125_and_says_so(state_directory: Path) -> None:
    require_docker(BUSYBOX)
    done = ringfence("run", "--image", "no-such-image", "--", "true")
    assert done.returncode == 125
    assert b"no-such-image" in done.stderr


def test_an_unknown_id_is_named(state_directory: Path) -> None:
    done = ringfence("exec", "nothing", "--", "true")
    assert done.returncode == 125
    assert b"nothing" in done.stderr


def test_doctor_says_what_is_here() -> None:
    data = json.loads(ringfence("doctor", "--json").stdout)
    assert {one["name"] for one in data["findings"]} >= {"docker", "process", "kernel", "cgroups"}


@pytest.mark.parametrize(
    "verb", ["run", "exec", "create", "ps", "rm", "cp", "ls", "shell", "stats"]
)
def test_help_teaches_each_verb(verb: str) -> None:
    done = ringfence(verb, "--help")
    assert done.returncode == 0
    assert len(done.stdout) > 300


def test_what_verbs_do_is_in_the_audit_log(created: str, tmp_path: Path) -> None:
    log, source = tmp_path / "audit", tmp_path / "source"
    source.write_text("data")
    audit = ("--audit", str(log))
    assert ringfence("cp", *audit, str(source), f"{created}:/tmp/").returncode == 0
    assert ringfence("exec", *audit, created, "--", "cat", "/tmp/source").stdout == b"data"
    kinds = [json.loads(line)["kind"] for line in log.read_text().splitlines()]
    assert {"Attached", "FilesMoved", "ExecStarted", "ExecEnded", "Detached"} <= set(kinds)
    assert ringfence("audit", "verify", str(log)).returncode == 0
