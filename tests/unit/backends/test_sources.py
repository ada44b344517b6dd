"""What of the host may be bound into a sandbox, links resolved first."""

import os
import socket
from pathlib import Path

import pytest

from ringfence.backends.sources import VARIABLE, check_source
from ringfence.errors import InvalidSpecError, PolicyDeniedError


@pytest.fixture(autouse=True)
def _state(state_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_directory_of_a_project_may_be_bound(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    assert check_source(project) == project.resolve()


def test_what_is_bound_is_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert check_source(tmp_path / "link").name == "real"


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/etc/passwd", "/proc", "/proc/1", "/sys", "/dev", "/dev/null", "/run"]
)
def test_the_host_s_own_places_are_refused(path: str) -> None:
    with pytest.raises(PolicyDeniedError):
        check_source(path)


def test_a_link_to_such_a_place_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "innocent").symlink_to("/etc")
    with pytest.raises(PolicyDeniedError, match="/etc"):
        check_source(tmp_path / "innocent")


def test_what_holds_such_a_place_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "daemon" / "data"
    root.mkdir(parents=True)
    for place in (tmp_path / "daemon", root):
        with pytest.raises(PolicyDeniedError, match="data"):
            check_source(place, daemon_root=str(root))


def test_a_whole_home_and_its_credentials_are_refused_but_not_a_project_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / "project").mkdir()
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(PolicyDeniedError, match="home"):
        check_source(home)
    with pytest.raises(PolicyDeniedError, match="credentials"):
        check_source(home / ".ssh")
    assert check_source(home / "project")


def test_our_own_state_is_refused(state_directory: Path) -> None:
    with pytest.raises(PolicyDeniedError, match="own state"):
        check_source(state_directory)


def test_a_socket_and_a_fifo_are_refused_even_below_an_allowed_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    os.mkfifo("fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("sock")
    for name in ("fifo", "sock"):
        with pytest.raises(PolicyDeniedError, match="only directories"):
            check_source(name)
    listener.close()


def test_an_operator_can_widen_it_but_not_to_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv(VARIABLE, f"{root}:/proc")
    assert check_source(root, daemon_root=str(root))
    with pytest.raises(PolicyDeniedError, match="kernel"):
        check_source("/proc/1")


def test_what_is_not_there_is_an_invalid_spec(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match="No such file"):
        check_source(tmp_path / "none")
