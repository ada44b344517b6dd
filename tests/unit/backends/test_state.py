"""The state directory shows nothing of what is in it to another user of this machine."""

import stat
from pathlib import Path

import pytest

from ringfence.backends import state
from ringfence.errors import InvalidSpecError


def test_what_holds_contents_can_be_entered_by_nobody_else(state_directory: Path) -> None:
    """Whatever the modes of a repository's own files are; one that was open before is closed."""
    (state_directory / "workspaces").mkdir(mode=0o755)
    assert state.state_directory() == state_directory
    for name in ("workspaces", "snapshots", "store"):
        assert stat.S_IMODE((state_directory / name).stat().st_mode) == 0o700


def test_a_path_that_is_no_text_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "caf\udce9"
    monkeypatch.setenv(state.VARIABLE, str(odd))
    with pytest.raises(InvalidSpecError, match=f"no UTF-8: set {state.VARIABLE}"):
        state.state_directory()
    assert not odd.exists()
