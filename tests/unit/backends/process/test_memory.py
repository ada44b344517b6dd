"""The directory of all sandboxes is in memory where that is root's alone."""

import os
from pathlib import Path

import pytest

from ringfence.backends.process import memory
from ringfence.backends.process.home import Home


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place that passes for a tmpfs of root's."""
    place = tmp_path / "shm"
    place.mkdir()
    monkeypatch.setattr(memory, "PLACES", (str(place),))
    monkeypatch.setattr(memory, "_in_memory", lambda name: name == str(place))
    return place


def ready(root: Path, place: Path) -> None:
    memory.ready(root, (str(place),))


def test_nothing_stays_in_memory_where_the_link_to_it_cannot_be_made(
    tmp_path: Path, shared: Path
) -> None:
    """As on a full disk."""
    if os.getuid() != 0:
        pytest.skip("only root has it in memory")
    with pytest.raises(FileNotFoundError):
        ready(tmp_path / "absent/sandboxes", shared)
    assert list(shared.iterdir()) == []


def test_it_is_a_link_into_memory_that_goes_with_the_last(tmp_path: Path, shared: Path) -> None:
    root = tmp_path / "sandboxes"
    if os.getuid() != 0:
        pytest.skip("only root has it in memory")
    ready(root, shared)
    target = root.readlink()
    assert memory.target(root) == str(target)
    assert target.parent == shared
    assert target.stat().st_mode & 0o777 == 0o711
    ready(root, shared)
    assert root.readlink() == target
    (root / "box").mkdir()
    memory.leave(root)
    assert target.is_dir()
    (root / "box").rmdir()
    memory.leave(root)
    memory.leave(root)
    assert list(shared.iterdir()) == []
    ready(root, shared)
    assert root.readlink() == target
    assert target.is_dir()


def test_files_in_it_go_along_when_no_sandbox_is_there(tmp_path: Path, shared: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root has it in memory")
    root = tmp_path / "sandboxes"
    ready(root, shared)
    (root / ".guest").touch()
    (root / "box").mkdir()
    memory.leave(root)
    assert (root / ".guest").exists()
    (root / "box").rmdir()
    memory.leave(root)
    assert list(shared.iterdir()) == []


def test_a_sandbox_that_comes_while_the_last_one_leaves_makes_it_again(
    tmp_path: Path, shared: Path
) -> None:
    root = tmp_path / "sandboxes"
    ready(root, shared)
    memory.leave(root)
    home = Home(root / "box")
    home.make({"labels": {}}, str(tmp_path / "absent"))
    assert home.facts() == {"labels": {}}


def test_the_last_one_may_leave_at_any_moment(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also between making sure that the directory is there and looking whose it is."""
    if os.getuid() != 0:
        pytest.skip("only root has it in memory")
    root = tmp_path / "sandboxes"
    ready(root, shared)
    look, left = memory._ours, []

    def leave_first(target: str) -> bool:
        if not left:
            left.append(target)
            memory.leave(root)
        return look(target)

    monkeypatch.setattr(memory, "_ours", leave_first)
    ready(root, shared)
    assert left == [str(root.readlink())]
    Home(root / "box").make({"labels": {}}, str(tmp_path / "absent"))
    assert root.is_symlink()
    assert (root / "box").is_dir()


def _left(tmp_path: Path, shared: Path) -> tuple[Path, Path]:
    """The link to a place in memory whose last sandbox left, and where that place was."""
    if os.getuid() != 0:
        pytest.skip("only root has it in memory")
    root = tmp_path / "sandboxes"
    ready(root, shared)
    target = root.readlink()
    memory.leave(root)
    return root, target


@pytest.mark.parametrize("squatter", ["writable", "file", "link"])
def test_what_somebody_else_put_there_is_not_used(
    tmp_path: Path, shared: Path, squatter: str
) -> None:
    """The name is free for a moment when the last sandbox left, in a place for everybody."""
    root, target = _left(tmp_path, shared)
    if squatter == "writable":
        target.mkdir()
        target.chmod(0o777)
    elif squatter == "file":
        target.touch()
    else:
        target.symlink_to(tmp_path)
    ready(root, shared)
    assert not root.is_symlink()
    assert root.is_dir()
    assert root.stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize("squatter", ["writable", "foreign", "link"])
def test_a_backend_that_lives_on_does_not_use_it_either(
    tmp_path: Path, shared: Path, squatter: str
) -> None:
    """It looked when it began; what it makes now is not made in somebody else's directory."""
    root, target = _left(tmp_path, shared)
    if squatter == "link":
        (tmp_path / "elsewhere").mkdir()
        target.symlink_to(tmp_path / "elsewhere")
    else:
        target.mkdir()
        target.chmod(0o777 if squatter == "writable" else 0o711)
        os.chown(target, 12345 if squatter == "foreign" else 0, -1)
    home = Home(root / "box")
    home.make({"labels": {}}, str(tmp_path / "absent"))
    assert home.facts() == {"labels": {}}
    assert not root.is_symlink()
    assert root.stat().st_uid == 0


def test_without_a_tmpfs_it_is_with_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "sandboxes"
    memory.ready(root, (str(tmp_path),))
    memory.ready(root, (str(tmp_path),))
    assert not root.is_symlink()
    assert memory.target(root) is None
    memory.leave(root)
    assert root.is_dir()


def test_a_directory_that_was_there_before_stays(tmp_path: Path, shared: Path) -> None:
    """While sandboxes of an older version are in it."""
    root = tmp_path / "sandboxes"
    (root / "box").mkdir(parents=True)
    ready(root, shared)
    assert (root / "box").is_dir()
    assert not root.is_symlink()
    (root / "box").rmdir()
    ready(root, shared)
    assert root.is_symlink() is (os.getuid() == 0)


def test_a_place_is_in_memory_by_the_kernels_word(tmp_path: Path) -> None:
    assert not memory._in_memory(str(tmp_path))
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    whole = [
        fields[1] for fields in mounts if fields[2] == "tmpfs" and os.access(fields[1], os.W_OK)
    ]
    assert all(memory._in_memory(place) for place in whole if "\\" not in place)
