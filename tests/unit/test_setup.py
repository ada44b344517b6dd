"""What scripts/setup does where something is missing: it installs it, or says what to install."""

import shutil
import subprocess
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[2] / "scripts" / "lib.sh"
TOOLS = ("bash", "env", "id", "grep", "sed", "rm")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The only directory of PATH: a few tools, and what a test puts there."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for tool in TOOLS:
        (directory / tool).symlink_to(str(shutil.which(tool)))
    return directory


def fake(programs: Path, name: str, script: str) -> None:
    path = programs / name
    path.write_text(f'#!{shutil.which("bash")}\necho "{name} $*" >>"$LOG"\n{script}\n')
    path.chmod(0o755)


def step(programs: Path, line: str, **env: str) -> tuple[int, str, str]:
    """Run a step of the library; its exit code, what it said, and what the fakes were asked."""
    log = programs.parent / "log"
    log.touch()
    done = subprocess.run(
        [str(programs / "bash"), "-euc", f". {LIBRARY}\n{line}"],
        env={"PATH": str(programs), "LOG": str(log), **env},
        cwd=programs.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr, log.read_text()


AS_ROOT = 'id() { echo 0; }; as_root() { "$@"; };'
AS_USER = "id() { echo 1000; };"


def test_a_missing_package_is_installed_once_the_lists_are_new(programs: Path) -> None:
    fake(programs, "apt-get", "")
    code, said, asked = step(programs, f"{AS_ROOT} system_packages a:sed b:no-such-thing c:/none")
    assert (code, said) == (0, "setup: installing b c\n")
    update, install = asked.splitlines()
    assert update.endswith(" update")
    assert install.endswith(" install -y --no-install-recommends b c")


def test_what_an_installation_left_half_done_is_finished_first(programs: Path) -> None:
    fake(programs, "apt-get", '[[ "$*" != *install* ]] || [ -e "$LOG.done" ]')
    fake(programs, "dpkg", ': >"$LOG.done"')
    code, _, asked = step(programs, f"{AS_ROOT} install b")
    assert code == 0
    assert [line.split()[0] for line in asked.splitlines()] == [
        "apt-get",
        "apt-get",
        "dpkg",
        "apt-get",
    ]


@pytest.mark.parametrize("who", [AS_USER, f"{AS_ROOT} apt_get() {{ false; }};"])
def test_what_cannot_be_installed_is_named_with_the_command(programs: Path, who: str) -> None:
    fake(programs, "apt-get", "")
    fake(programs, "dpkg", "")
    code, said, _ = step(programs, f"{who} system_packages b:no-such-thing")
    assert code == 1
    assert said.endswith(
        "please install b (on Debian and Ubuntu, as root: apt-get install b), then run this again\n"
    )


def test_a_package_that_a_release_lacks_is_left_out_aloud(programs: Path) -> None:
    fake(programs, "apt-get", "")
    fake(
        programs,
        "apt-cache",
        'case $2 in a) echo "  Candidate: 1.0" ;; *) echo "  Candidate: (none)" ;; esac',
    )
    code, said, asked = step(programs, f"{AS_ROOT} optional_packages a:no-such-a b:no-such-b")
    assert code == 0
    assert "no package b: the tests that need it are skipped" in said
    assert [line.split()[-1] for line in asked.splitlines() if " install " in line] == ["a"]


def test_a_daemon_that_is_named_and_silent_is_not_replaced(programs: Path) -> None:
    fake(programs, "docker", "exit 1")
    code, said, asked = step(programs, f"{AS_ROOT} engine", DOCKER_HOST="tcp://somewhere:1")
    assert code == 1
    assert "DOCKER_HOST=tcp://somewhere:1 does not answer" in said
    assert "unset DOCKER_HOST" in said
    assert "apt-get" not in asked


def test_a_command_line_of_docker_that_is_a_package_of_its_own_is_installed(programs: Path) -> None:
    """Debian 13: docker.io is the daemon alone."""
    fake(programs, "dockerd", "")
    script = f'[[ "$*" != *docker-cli* ]] || ln -s {shutil.which("true")} {programs}/docker'
    (programs / "ln").symlink_to(str(shutil.which("ln")))
    fake(programs, "apt-get", script)
    code, said, _ = step(programs, f"{AS_ROOT} engine")
    assert (code, said) == (0, "setup: installing docker-cli\n")


def test_an_old_python_is_refused_with_how_to_name_another(programs: Path) -> None:
    fake(programs, "python3", "exit 1")
    code, said, _ = step(programs, "venv")
    assert code == 1
    assert "python3 is not Python 3.11 or newer" in said
    assert "PYTHON=/path/to/python3.12 make ..." in said


def test_an_environment_that_is_half_made_or_was_moved_is_made_again(programs: Path) -> None:
    """A whole one is kept."""
    make = 'mkdir -p $3/bin; printf "#!/bin/sh" >$3/bin/python; chmod 755 $3/bin/python'
    fake(programs, "python3", f'{make}; echo "command = x -m venv $PWD/$3" >$3/pyvenv.cfg')
    for tool in ("mkdir", "chmod"):
        (programs / tool).symlink_to(str(shutil.which(tool)))
    place = programs.parent / "one"
    (place / ".venv").mkdir(parents=True)
    line = "environment .venv python3"
    for expected in (1, 1):
        code, _, asked = step(programs, f"cd {place}; {line}")
        assert code == 0
        assert asked.count("-m venv") == expected
    place = place.rename(programs.parent / "two")
    code, _, asked = step(programs, f"cd {place}; {line}")
    assert (code, asked.count("-m venv")) == (0, 2)
    assert (place / ".venv/pyvenv.cfg").read_text() == f"command = x -m venv {place}/.venv\n"


@pytest.mark.parametrize(
    ("version", "fails"), [("2.10", 1), ("2.10.3", 1), ("2.22.0", 0), ("1.90", 0)]
)
def test_what_another_version_finds_in_the_agent_is_shown_and_does_not_count(
    programs: Path, version: str, fails: int
) -> None:
    script = f"""
        if [ "$1" = --version ]; then echo "Cppcheck {version}"; exit; fi
        echo "a finding" >&2
        for one; do case $one in --error-exitcode=*) exit ${{one#*=}} ;; esac; done"""
    fake(programs, "cppcheck", script)
    code, said, _ = step(programs, "look_at_agent")
    assert (code, said) == (fails, "a finding\n")


def test_without_cppcheck_the_rest_is_checked(programs: Path) -> None:
    code, said, _ = step(programs, "there() { false; }; look_at_agent")
    assert (code, said) == (0, "cppcheck is not installed: the agent is not looked at\n")
