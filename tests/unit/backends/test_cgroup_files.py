"""A limit below what is used is refused on version 2, too, whose kernel would kill for it."""

from pathlib import Path

import pytest

from ringfence.backends.cgroups import Cgroup, Tree
from ringfence.errors import NotFoundError, ResourceExhaustedError
from ringfence.spec import Limits


def cgroup(directory: Path, used: int) -> Cgroup:
    (directory / "memory.current").write_text(f"{used}\n")
    (directory / "memory.max").write_text("max\n")
    unified = {"unified": str(directory)}
    return Cgroup(Tree(2, unified, frozenset({"memory"})), unified)


def test_a_limit_below_what_is_used_is_refused_after_an_attempt_to_reclaim(tmp_path: Path) -> None:
    made = cgroup(tmp_path, 2**25)
    with pytest.raises(ResourceExhaustedError, match="uses more than"):
        made.update(Limits(memory=2**24))
    assert (tmp_path / "memory.max").read_text() == "max\n"
    assert (tmp_path / "memory.reclaim").read_text() == str(2**24)


def test_a_limit_above_what_is_used_is_written(tmp_path: Path) -> None:
    cgroup(tmp_path, 2**24).update(Limits(memory=2**25))
    assert (tmp_path / "memory.max").read_text() == str(2**25)
    assert not (tmp_path / "memory.reclaim").exists()


def test_a_cgroup_that_is_gone_is_not_found(tmp_path: Path) -> None:
    made = cgroup(tmp_path, 2**24)
    (tmp_path / "memory.current").unlink()
    with pytest.raises(NotFoundError):
        made.update(Limits(memory=2**25))
