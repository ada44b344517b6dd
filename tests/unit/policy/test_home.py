"""Whoever runs Ringfence has a home, or none: both are ordinary."""

import os
import pwd
from pathlib import Path

import pytest

from ringfence.backends.sources import check_source
from ringfence.backends.state import state_directory
from ringfence.errors import ResourceExhaustedError
from ringfence.policy.home import home
from ringfence.workspace.sources import check_root


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A uid that no name has and no HOME, as in many a container."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_STATE_HOME", "RINGFENCE_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_home_wins_over_the_uid_s_directory() -> None:
    assert home({"HOME": "/a"}) == Path("/a")
    assert home({"HOME": ""}) == home({}) == Path(pwd.getpwuid(os.getuid()).pw_dir)


def test_a_user_without_a_home_may_show_a_directory(
    homeless: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGFENCE_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "project").mkdir()
    assert check_source(tmp_path / "project") == tmp_path / "project"
    assert check_root(str(tmp_path / "project")) == tmp_path / "project"


def test_a_user_without_a_home_is_told_to_name_a_state_directory(
    homeless: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(ResourceExhaustedError, match=r"/nonexistent/.*RINGFENCE_STATE_DIR"):
        state_directory()
