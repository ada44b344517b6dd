"""The process backend of an ordinary user, in a user namespace and without cgroups."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require_bwrap, require_root
from tests.integration.process.kept import weak

UID = 61234


_GUESTS = {
    "own": (str(UID), "755"),
    "installed for all": ("0", "711"),
    "bubblewrap": (str(UID), "755", "bubblewrap"),
}


@pytest.fixture(scope="module", params=list(_GUESTS))
def told(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    require_bwrap()
    require_root()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ringfence-ordinary-") as directory:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.integration.process.ordinary",
                str(UID),
                directory,
                *_GUESTS[request.param],
            ],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        yield {**json.loads(done.stdout), "own": request.param != "bubblewrap"}


def test_commands_run_confined_under_the_one_user_there_is(told: dict[str, Any]) -> None:
    assert told["id"] == ["1000", "user"]
    assert told["users"] is False
    assert told["uid_map"] == ["1000", str(UID), "1"]
    assert told["namespaces"] == {"user": True}  # whether or not we may read which one it is
    status = dict(zip(told["status"][::2], told["status"][1::2], strict=True))
    assert {status[f"Cap{kind}:"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (status["NoNewPrivs:"], status["Seccomp:"]) == ("1", "2")
    assert told["unshare"] != 0


def test_the_system_is_read_only_works_and_runs_nothing_from_run(told: dict[str, Any]) -> None:
    assert [code == 0 for code in told["write"]] == [False, False, False, True]
    assert told["noexec"] == 126
    assert told["python"] == "2\n"


def test_no_mount_gives_rights_or_devices(told: dict[str, Any]) -> None:
    assert " /usr " in told["mounts"]
    assert weak(told["mounts"]) == []


def test_commands_cannot_reach_the_guest_though_they_have_its_uid(told: dict[str, Any]) -> None:
    first, itself = told["kill"]
    assert first == "/proc/1" != itself
    assert told["alive"] == "alive\n"


def test_the_proc_of_each_command_is_masked_as_well(told: dict[str, Any]) -> None:
    assert told["masked"] == ""
    assert told["sysrq"] != 0


def test_limits_that_need_a_cgroup_are_refused_with_the_remedy(told: dict[str, Any]) -> None:
    code, message = told["refused"]
    assert code == "unsupported"
    assert "memory" in message
    assert "root" in message
    assert told["limits"] == ["output", "run", "shm", "timeout", "tmp", "ulimits"]


def test_a_guest_ends_when_all_that_looks_after_it_was_killed(told: dict[str, Any]) -> None:
    """Without cgroups nobody else would find it before its lifetime is over."""
    assert told["above"] == {"keeper": told["own"], "killed": True}


def test_the_keeper_begins_a_sandbox_itself_where_it_may(told: dict[str, Any]) -> None:
    assert told["begins"] is told["own"]


def test_no_command_can_lock_the_host_out(told: dict[str, Any]) -> None:
    """It has the host's uid here, and may open what it sees of the sandbox's directory."""
    assert told["opened_again"] == ["locked\n", "alive\n"]


def test_the_one_user_has_the_one_group_whatever_an_image_says(told: dict[str, Any]) -> None:
    """No other is mapped: with one of the image's, nothing could be run in it."""
    assert told["of_image"] == [[1000, 1000], [1000, 1000]]


def test_layers_go_into_directories_that_an_image_says_are_read_only(told: dict[str, Any]) -> None:
    assert told["layers"] == "/bin/new /bin/sh\n"


def test_an_image_that_may_not_be_read_is_an_error_that_says_so(told: dict[str, Any]) -> None:
    assert told["unreadable"] == ["ImageError", "ImageError"]


def test_nothing_is_left(told: dict[str, Any]) -> None:
    assert told["left"] == []
