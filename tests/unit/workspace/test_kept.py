"""The frozen tree of a repository is used again while nothing differs, and only then."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.errors import ResourceExhaustedError, StateError
from ringfence.spec import Repository
from ringfence.workspace import Prepared, manifest, prepare, shared
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


def look(layer: Path) -> dict[str, object]:
    """All that a layer shows, and its record, without what only says when it was made."""
    tree = layer / "tree"
    seen: dict[str, object] = {}
    for path in [tree, *sorted(tree.rglob("*"))]:
        name = str(path.relative_to(tree))
        status = path.lstat()
        facts = [status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns]
        if name.startswith(".git"):
            facts = [status.st_mode]
        elif path.is_symlink():
            facts.append(str(path.readlink()))
        elif path.is_file():
            facts.append(status.st_ino)
        seen[name] = facts
    for entry in manifest.read(layer / "entries").values():
        own = entry._replace(ctime=0, links=0)
        seen[f"record of {entry.path}"] = own if entry.kind == "file" else own._replace(inode=0)
    return seen


def turn(root: Path) -> None:
    """Files become directories and the other way round."""
    (root / "run.sh").unlink()
    (root / "run.sh").mkdir()
    (root / "run.sh/inner").touch()
    shutil.rmtree(root / "src")
    (root / "src").touch()
    (root / "link").unlink()
    (root / "link").mkdir()
    (root / "deep/er/and").mkdir(parents=True)


def lock(root: Path) -> None:
    (root / "src/more").touch()
    (root / "src").chmod(0o555)


@pytest.mark.parametrize(
    "change", [*DIFFERENCES, turn, lock, lambda root: (root / ".env").unlink()]
)
def test_a_tree_that_is_brought_up_to_date_is_the_one_that_would_be_made_anew(
    repository: Path, make: Make, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    (repository / "src").chmod(0o555)
    first = make(repository)
    first.close()
    (repository / "src").chmod(0o755)
    change(repository)
    again = make(repository)
    status = repository.stat()
    spec = Repository(path=str(repository))
    fresh = prepare(
        spec,
        directory=tmp_path / "elsewhere/workspace",
        uid=status.st_uid,
        gid=status.st_gid,
        privileged=False,
        strategy="copy",
    )
    try:
        assert look(layer_of(again)) == look(layer_of(fresh))
        assert git(inside(again), "status", "--porcelain") == (
            git(inside(fresh), "status", "--porcelain")
        )
    finally:
        fresh.close()
    assert not layer_of(first).exists()
    again.close()
    assert only_kept(tmp_path / "state/.layers")


def test_only_what_differs_is_linked_again(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(repository).close()
    edit(repository)
    replace(repository)
    (repository / "fresh").touch()
    real, linked = os.link, []

    def link(source: str, target: str, **descriptors: int) -> None:
        linked.append(source)
        real(source, target, **descriptors)

    monkeypatch.setattr(os, "link", link)
    make(repository)
    named = {name for name in linked if "." in name or name == "fresh"}
    assert named == {"code.py", "fresh"}


def test_what_is_hidden_now_is_taken_out_of_a_tree_that_is_brought_up_to_date(
    repository: Path, make: Make
) -> None:
    make(repository).close()
    again = make(repository, exclude=("src/data.bin", "run.sh"))
    tree = layer_of(again) / "tree"
    assert not (tree / "src/data.bin").exists()
    assert not (tree / "run.sh").exists()
    assert (tree / "src/code.py").exists()


def test_a_tree_that_is_used_is_left_alone(repository: Path, make: Make) -> None:
    first = make(repository)
    before = look(layer_of(first))
    edit(repository)
    (repository / "run.sh").unlink()
    second = make(repository)
    after = look(layer_of(first))
    assert layer_of(second) != layer_of(first)
    assert after.keys() == before.keys()


def test_a_tree_that_was_taken_again_is_left_alone_as_well(repository: Path, make: Make) -> None:
    """Neither is another made of it, nor does it go with the next one that is kept."""
    make(repository).close()
    taken = make(repository)
    before = look(layer_of(taken))
    for _ in range(2):
        replace(repository)
        other = make(repository)
        assert layer_of(other) != layer_of(taken)
        other.close()
    assert look(layer_of(taken)).keys() == before.keys()
    assert len(taken.changes()) == 0


def test_a_failure_to_bring_a_tree_up_to_date_leaves_none(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make(repository).close()
    edit(repository)
    (repository / "fresh").touch()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        with pytest.raises(ResourceExhaustedError):
            make(repository)
    assert list((tmp_path / "state/.layers").iterdir()) == []
    assert len(make(repository).changes()) == 0


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


def test_four_are_kept_the_last_that_were_used(tmp_path: Path) -> None:
    kept: list[Path] = []
    for number in range(6):
        origin, directory = tmp_path / f"project-{number}", tmp_path / f"state/{number}"
        origin.mkdir()
        directory.mkdir(parents=True)
        layer = shared.keep(shared.create(directory), f"stamp-{number}", origin)
        os.utime(layer.path, (time.time() - 60 + number,) * 2)
        kept.append(layer.path)
        shared.release(directory)
    assert set((tmp_path / "state/.layers").iterdir()) == set(kept[2:])


def test_one_that_is_used_again_is_kept_for_another_day(repository: Path, make: Make) -> None:
    first = make(repository)
    first.close()
    day = time.time() - 2 * 24 * 3600
    os.utime(layer_of(first), (day, day))
    again = make(repository)
    assert layer_of(again) == layer_of(first)
    again.close()
    assert layer_of(first).exists()


def test_one_of_another_repository_is_left_to_it(
    repository: Path, make: Make, tmp_path: Path
) -> None:
    first = make(repository)
    first.close()
    shutil.copytree(repository, tmp_path / "other", symlinks=True)
    make(tmp_path / "other").close()
    assert layer_of(make(repository)) == layer_of(first)


@pytest.mark.parametrize("first", ["users", "tree/src"])
def test_a_tree_whose_removal_was_cut_short_is_taken_by_nobody_and_stops_nobody(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: str
) -> None:
    """As by the end of the process; what is left of it goes with the next one."""
    store = tmp_path / "state/.layers"

    def cut(layer: Path) -> None:
        shutil.rmtree(layer / first)
        raise KeyboardInterrupt

    make(repository).close()
    (kept,) = store.iterdir()
    day = time.time() - 2 * 24 * 3600
    os.utime(kept, (day, day))
    with monkeypatch.context() as patch:
        patch.setattr(shared, "clear", cut)
        with pytest.raises(KeyboardInterrupt):
            shared.release(tmp_path / "state/nobody")
    again = make(repository)
    assert (inside(again) / "src/code.py").exists()
    again.close()
    assert kept not in [*store.iterdir()] or (kept / "tree/src/code.py").exists()
    make(repository).close()
    assert only_kept(store)


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_a_tree_that_goes_while_it_is_looked_for_is_none(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """Another opening takes its link to the repository away between two looks."""
    first = make(repository)
    first.close()
    real, seen = shared._origin, []

    def taken(path: Path) -> Path | None:
        seen.append(path)
        if len(seen) == looks + 1 and path == layer_of(first):
            (path / "origin").unlink()
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(shared, "_origin", taken)
        again = make(repository)
    assert layer_of(again) != layer_of(first)
    assert len(again.changes()) == 0
