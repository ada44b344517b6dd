"""A snapshot is named by its content; a fork starts where its parent was."""

from pathlib import Path

import pytest

from ringfence.errors import InvalidSpecError, NotFoundError, StateError
from ringfence.workspace import For, clean, fork
from ringfence.workspace import snapshot as keep
from ringfence.workspace.snapshot import delete, find, verify
from tests.unit.workspace.conftest import Make, git, inside, only_kept
from tests.unit.workspace.test_patch import snapshot


def test_the_same_state_has_the_same_digest(repository: Path, make: Make, tmp_path: Path) -> None:
    place = tmp_path / "snapshots"
    one, other = make(repository, history="head"), make(repository, history="head")
    first = keep(one, place)
    assert first.digest.startswith("sha256:")
    (inside(one) / "README.md").write_text("changed\n")
    second = keep(one, place)
    assert second.digest != first.digest
    (inside(one) / "README.md").write_text("A project.\n")
    assert keep(one, place).digest == first.digest
    assert len(list(place.iterdir())) == 2
    assert find(second.digest, place).size == second.size
    assert other is not one


def test_a_snapshot_can_be_opened(repository: Path, make: Make, tmp_path: Path) -> None:
    place = tmp_path / "snapshots"
    prepared = make(repository)
    (inside(prepared) / "README.md").write_text("kept\n")
    git(inside(prepared), "commit", "-q", "-a", "-m", "inside")
    kept = keep(prepared, place)
    prepared.close()
    opened = make(repository, start=kept.path / "tree")
    assert (inside(opened) / "README.md").read_text() == "kept\n"
    assert git(inside(opened), "log", "-1", "--format=%s").strip() == "inside"
    assert len(opened.changes()) == 0
    (inside(opened) / "README.md").write_text("more\n")
    assert opened.changes().of("modified") == ("README.md",)
    verify(kept)
    delete(kept.digest, place)
    with pytest.raises(NotFoundError):
        find(kept.digest, place)


def test_a_changed_snapshot_is_found_out(repository: Path, make: Make, tmp_path: Path) -> None:
    kept = keep(make(repository), tmp_path / "snapshots")
    (kept.path / "tree/README.md").write_text("forged\n")
    with pytest.raises(StateError, match="README"):
        verify(kept)
    (kept.path / "manifest.json").write_text("{}")
    with pytest.raises(StateError, match="manifest"):
        find(kept.digest, tmp_path / "snapshots")
    with pytest.raises(InvalidSpecError):
        find("sha256:../../x", tmp_path / "snapshots")


def test_forks_share_a_start_and_nothing_else(repository: Path, make: Make, tmp_path: Path) -> None:
    parent = make(repository)
    (inside(parent) / "README.md").write_text("parent\n")
    owner = repository.stat()
    directories = [tmp_path / "state" / f"fork-{number}" for number in range(3)]
    children = fork(parent, directories, For(owner.st_uid, owner.st_gid, privileged=False))
    assert all(snapshot(inside(child)) == snapshot(inside(parent)) for child in children)
    (inside(children[0]) / "src/code.py").write_text("first\n")
    (inside(parent) / "README.md").write_text("parent goes on\n")
    assert children[0].changes(since="parent").of("modified") == ("src/code.py",)
    assert children[0].changes().of("modified") == ("README.md", "src/code.py")
    assert len(children[1].changes(since="parent")) == 0
    parent.close()
    assert (inside(children[1]) / "README.md").read_text() == "parent\n"
    for directory in directories:
        clean(directory)
    assert only_kept(tmp_path / "state/.layers")
