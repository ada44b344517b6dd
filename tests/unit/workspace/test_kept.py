"""The frozen tree of a repository is used again while nothing differs, and only then."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.errors import StateError
from ringfence.workspace import Prepared, shared
from tests.unit.workspace.conftest import Make, git, inside, only_kept


def layer_of(prepared: Prepared) -> Path:
    return prepared.layers[-1]


def test_an_unchanged_repository_is_staged_once(repository: Path, make: Make) -> None:
    first = make(repository)
    (inside(first) / "README.md").write_text("changed inside\n")
    second = make(repository)
    assert layer_of(second) == layer_of(first)
    first.close()
    third = make(repository)
    assert layer_of(third) == layer_of(first)
    assert (inside(third) / "README.md").read_text() == "A project.\n"
    assert git(inside(third), "log", "--format=%s").strip() == "first"
    assert len(third.changes()) == 0
    (inside(third) / "README.md").write_text("changed\n")
    assert third.changes().of("modified") == ("README.md",)


def edit(root: Path) -> None:
    (root / "src/code.py").write_text("edited\n")


def replace(root: Path) -> None:
    shutil.copy2(root / "src/code.py", root / "other")
    (root / "other").replace(root / "src/code.py")


def commit(root: Path) -> None:
    git(root, "commit", "-q", "--allow-empty", "-m", "second")


def link(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("run.sh")


DIFFERENCES: tuple[Callable[[Path], object], ...] = (
    edit,
    replace,
    commit,
    link,
    lambda root: (root / "fresh").touch(),
    lambda root: (root / "run.sh").unlink(),
    lambda root: (root / "run.sh").chmod(0o700),
    lambda root: (root / "src").chmod(0o700),
    lambda root: root.chmod(0o700),
    lambda root: (root / "src").rename(root / "source"),
    lambda root: git(root, "rm", "-q", "--cached", "run.sh"),
)


@pytest.mark.parametrize("change", DIFFERENCES)
def test_what_differs_is_seen(
    repository: Path, make: Make, change: Callable[[Path], object]
) -> None:
    repository.chmod(0o755)
    (repository / "src").chmod(0o755)
    first = make(repository)
    change(repository)
    second = make(repository)
    assert layer_of(second) != layer_of(first)
    assert len(second.changes()) == 0
    for name in ("src/code.py", "link", "run.sh"):
        theirs, ours = repository / name, inside(second) / name
        assert os.path.lexists(theirs) == os.path.lexists(ours)
        if theirs.exists():
            assert ours.read_bytes() == theirs.read_bytes()


def test_other_patterns_make_another_tree(repository: Path, make: Make) -> None:
    first = make(repository)
    second = make(repository, exclude=("src/data.bin",))
    assert layer_of(second) != layer_of(first)
    assert not (inside(second) / "src/data.bin").exists()
    assert git(inside(second), "log", "--format=%s").strip() != "first"
    third = make(repository, history="head")
    assert layer_of(third) != layer_of(first)


def test_an_edit_in_place_is_told_where_the_tree_is_used_again(
    repository: Path, make: Make
) -> None:
    make(repository).close()
    again = make(repository)
    (inside(again) / "README.md").write_text("changed inside\n")
    (repository / "README.md").write_text("edited in place meanwhile\n")
    with pytest.raises(StateError, match=r"README\.md"):
        again.changes()


def test_copies_are_never_kept(repository: Path, make: Make) -> None:
    (repository / "run.sh").chmod(0o4755)
    first = make(repository)
    assert layer_of(make(repository)) != layer_of(first)
    masked = make(repository, file_mode=0o600)
    assert layer_of(make(repository, file_mode=0o600)) != layer_of(masked)


def test_one_is_kept_for_each_repository_for_a_day(
    repository: Path, make: Make, tmp_path: Path
) -> None:
    store = tmp_path / "state/.layers"
    first = make(repository)
    edit(repository)
    second = make(repository)
    first.close()
    second.close()
    assert only_kept(store)
    assert list(store.iterdir()) == [layer_of(second)]
    day = time.time() - 2 * 24 * 3600
    os.utime(layer_of(second), (day, day))
    shared.release(tmp_path / "state/nobody")
    assert list(store.iterdir()) == []
    make(repository).close()
    shutil.rmtree(repository)
    shared.release(tmp_path / "state/nobody")
    assert list(store.iterdir()) == []
