"""What only root may remove of a workspace is known, and only that is asked for."""

import os
import shutil
from pathlib import Path

import pytest

from ringfence.workspace import emptying
from tests.conftest import require_root


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The directory that the kernel makes in an overlay's, of root's, with nothing in it."""
    require_root()
    place = tmp_path / "it" / "work" / "work"
    place.mkdir(mode=0, parents=True)
    return place


def test_nothing_is_asked_for_without_an_overlay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert emptying(tmp_path / "gone") is None
    assert list(tmp_path.iterdir()) == []


def test_an_empty_directory_is_removed_without_asking(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert emptying(work.parents[1]) is None
    assert not work.exists()
    assert [path.name for path in work.parents[1].iterdir()] == ["work"]


def test_a_full_one_of_root_s_is_named_to_the_daemon_in_an_overlay_of_its_own(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs nothing of the workspace that may be gone."""
    (work / "#1").touch()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    place = work.parents[1]
    for _ in range(2):
        volume = emptying(place)
        assert volume is not None
        options = dict(one.partition("=")[::2] for one in volume["o"].split(","))
        assert volume["type"] == "overlay"
        assert options["workdir"] == str(work.parent)
        assert Path(options["upperdir"]).is_relative_to(place)
        assert Path(options["lowerdir"]).is_relative_to(place)
        assert Path(options["upperdir"]).is_dir()
        assert Path(options["lowerdir"]).is_dir()
    assert (work / "#1").exists()


def test_what_another_client_removes_meanwhile_needs_nobody(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "#1").touch()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    rmdir = Path.rmdir

    def late(path: Path) -> None:
        try:
            rmdir(path)
        finally:
            shutil.rmtree(work.parents[1])

    monkeypatch.setattr(Path, "rmdir", late)
    assert emptying(work.parents[1]) is None


@pytest.mark.parametrize("uid", [0, 1000])
def test_whose_it_is_removes_it_alone(
    work: Path, monkeypatch: pytest.MonkeyPatch, uid: int
) -> None:
    """Root may remove all; with a daemon without root it is the client's own."""
    (work / "#1").touch()
    os.chown(work, uid, uid)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert emptying(work.parents[1]) is None
    assert (work / "#1").exists()
