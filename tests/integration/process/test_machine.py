"""Machines that are not as usual: where nothing can be run, and a root of few users."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import require_bwrap, require_root

RUN = f"{sys.executable} -P -m ringfence run --backend process -- echo done"


@pytest.fixture(autouse=True)
def _as_root(state_directory: Path) -> None:
    require_bwrap()
    require_root()


def ran(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(args, capture_output=True, text=True, check=False, timeout=60)


def test_the_state_may_be_where_nothing_can_be_run(state_directory: Path) -> None:
    """As a home directory often is: the guest is then run from where it is installed."""
    mount = f"mount -t tmpfs -o noexec,mode=700 none {state_directory}"
    done = ran("unshare", "--mount", "sh", "-c", f"{mount} && {RUN}")
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_a_copy_of_the_guest_that_a_power_cut_left_empty_is_made_again(
    state_directory: Path,
) -> None:
    ran("sh", "-c", RUN)
    [copy] = (state_directory / "process").glob("guest-*")
    copy.write_bytes(b"")
    done = ran("sh", "-c", RUN)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_an_ordinary_user_from_whom_proc_hides_the_guest_is_told_so() -> None:
    look = (
        "import os; from pathlib import Path; from ringfence.backends.process import machine;"
        "os.setgroups([]); os.setresgid(61234, 61234, 61234); os.setresuid(61234, 61234, 61234);"
        "machine.look(Path('/bin/true'), Path('/tmp'))"
    )
    hide = "mount -t proc -o hidepid=2 proc /proc"
    command = f'{sys.executable} -P -c "{look}"'
    done = ran("unshare", "--mount", "sh", "-c", f"{hide} && {command}")
    assert "hidepid=0" in done.stderr
    assert ran("sh", "-c", command).returncode == 0


def test_a_root_that_has_no_users_for_commands_is_told_so() -> None:
    done = ran("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", RUN)
    assert done.returncode == 125
    assert "too few users" in done.stderr
