"""Layers are read as the kernel's overlay shows them: whiteouts, opaque directories, and neither
where none can be."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ringfence.workspace.layers import TRUSTED, USER, Layers, too_long
from tests.conftest import require_root


def whiteout(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


@contextmanager
def stack(place: Path, mark: str, opaque: str | None) -> Iterator[Layers]:
    """Three layers. mark: the attribute that makes a directory of the middle one opaque."""
    for name in ("top/shut/new", "top/dir", "top/over/inner", "middle/only", "middle/again",
                 "middle/shut/half", "middle/shut/sub/new", "low/shut/sub/old", "low/gone",
                 "low/shut/old", "low/shut/deep/old", "low/dir/x",
                 "low/over", "low/kept/y", "low/again"):  # fmt: skip
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)
    os.setxattr(place / "middle/shut", mark, b"y")
    os.setxattr(place / "top/over", mark, b"n")
    (place / "middle/kept").mkdir()
    os.setxattr(place / "middle/kept", mark, b"x")  # it holds whiteouts of another form
    whiteout(place / "top/gone")
    whiteout(place / "top/only")
    whiteout(place / "middle/kept/z")
    whiteout(place / "top/again")
    whiteout(place / "low/odd")
    with Layers([place / "top", place / "middle", place / "low"], opaque) as layers:
        yield layers


HIDDEN = {"gone", "only", "again", "shut/old", "shut/deep", "shut/deep/old", "shut/sub/old",
          "dir/x"}  # fmt: skip
SHOWN = {"shut": 0, "shut/new": 0, "shut/half": 1, "shut/sub": 1, "shut/sub/new": 1, "dir": 0,
         "over": 0, "over/inner": 0, "kept": 1,
         "kept/y": 2, "odd": 2}  # fmt: skip


@pytest.mark.parametrize("mark", [TRUSTED, USER])
def test_what_an_upper_layer_hides_is_not_there(tmp_path: Path, mark: str) -> None:
    require_root()
    with stack(tmp_path, mark, mark) as layers:
        assert list(layers.walk("dir")) == [], "it is a file"
        for path in (*HIDDEN, "kept/z", "kept/y/z", "none", "gone/below"):
            assert layers.find(path) is None
        found = {path: layers.find(path) for path in SHOWN}
        assert {path: each.layer for path, each in found.items() if each} == SHOWN
        assert {path for path, _ in layers.walk()} == set(SHOWN)
        assert {path for path, _ in layers.walk("shut")} == {
            path for path in SHOWN if path.startswith("shut/")
        }


@pytest.mark.parametrize("mark", [TRUSTED, USER])
def test_what_upper_layers_say_and_hide_is_touched(tmp_path: Path, mark: str) -> None:
    require_root()
    said = {"shut", "shut/new", "dir", "over", "over/inner", "gone", "only", "again"}
    with stack(tmp_path, mark, mark) as layers:
        assert set(layers.touched(1)) == said | {"dir/x"}
        middle = {"shut/half", "shut/old", "shut/deep", "shut/deep/old", "shut/sub", "kept",
                  "kept/z", "shut/sub/new", "shut/sub/old"}  # fmt: skip
        assert set(layers.touched(2)) == said | middle | {"dir/x"}
        assert list(layers.touched(3)) == []


def test_a_device_with_a_number_hides_nothing(tmp_path: Path) -> None:
    require_root()
    (tmp_path / "top").mkdir()
    (tmp_path / "low").mkdir()
    os.mknod(tmp_path / "top/null", stat.S_IFCHR, os.makedev(1, 3))
    with Layers([tmp_path / "top", tmp_path / "low"]) as layers:
        assert layers.find("null") is not None
        assert [path for path, _ in layers.walk()] == ["null"]


def test_the_attribute_of_another_kind_of_overlay_hides_nothing(tmp_path: Path) -> None:
    """What a program inside can set itself, where the kernel goes by what it cannot."""
    require_root()
    with stack(tmp_path, USER, TRUSTED) as layers:
        assert layers.find("shut/old") is not None
        assert layers.find("gone") is None


@pytest.mark.parametrize("layers", [1, 2])
def test_where_there_is_no_overlay_a_device_is_a_device(tmp_path: Path, layers: int) -> None:
    require_root()
    whiteout(tmp_path / "top/gone")
    (tmp_path / "low").mkdir()
    (tmp_path / "low/gone").touch()
    paths = [tmp_path / "top", tmp_path / "low"][:layers]
    with Layers(paths, TRUSTED if layers == 1 else None) as stacked:
        found = stacked.find("gone")
        assert found is not None
        assert stat.S_ISCHR(found.status.st_mode)
        assert [path for path, _ in stacked.walk()] == ["gone"]


@pytest.mark.parametrize(
    ("path", "long"),
    [("a" * 4000, False), ("a" * 4001, True), ("é" * 2000, False), ("é" * 2001, True),
     ("/\udcff" * 2001, True)],
)  # fmt: skip
def test_a_path_is_too_long_by_its_bytes(path: str, long: bool) -> None:
    assert too_long(path) is long
