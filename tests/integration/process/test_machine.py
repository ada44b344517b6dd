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


def test_a_root_that_has_no_users_for_commands_is_told_so() -> None:
    done = ran("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", RUN)
    assert done.returncode == 125
    assert "too few users" in done.stderr
