"""Staging notices what changes underneath, by one thread or by several."""

import errno
import fcntl
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import ResourceExhaustedError, SandboxError, StateError
from ringfence.spec import Repository
from ringfence.workspace import plan, staging
from ringfence.workspace.filling import Filling
from tests.unit.workspace.conftest import Make, digest_of_tree, inside
from tests.unit.workspace.test_patch import snapshot


@pytest.fixture(autouse=True)
def plain_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system has no reflinks, whatever is below the tests."""

    def refused(*args: object) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "ioctl", refused)


@pytest.fixture
def wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of 40 directories, which several threads copy."""
    monkeypatch.setattr(staging, "_FEW", 10)
    monkeypatch.setattr(staging, "_THREADS", 4)
    root = tmp_path / "wide"
    for number in range(40):
        place = root / f"d{number % 4}" / f"e{number}"
        place.mkdir(parents=True)
        for file in range(3):
            (place / f"f{file}").write_bytes(os.urandom(number * 100))
        (place / "link").symlink_to("f0")
    return root


def test_several_threads_copy_all(wide: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    real, threads = os.copy_file_range, set()

    def copied(*args: Any) -> int:
        threads.add(threading.get_ident())
        return real(*args)

    monkeypatch.setattr(os, "copy_file_range", copied)
    prepared = make(wide)
    assert threads
    assert threading.get_ident() not in threads
    assert snapshot(inside(prepared)) == snapshot(wide)
    assert len(prepared.changes()) == 0


@pytest.mark.parametrize("number", [errno.EMLINK, errno.EPERM])
def test_a_file_that_takes_no_link_is_copied_and_no_other(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It has 65,000 names, or is another user's."""
    real = os.link

    def link(source: str, *args: Any, **kwargs: Any) -> None:
        if source == "README.md":
            raise OSError(number, os.strerror(number))
        real(source, *args, **kwargs)

    monkeypatch.setattr(os, "link", link)
    prepared = [make(repository), make(repository)]
    assert prepared[0].layers != prepared[1].layers, "copies do not follow their originals"
    frozen = prepared[0].layers[0] / "tree"
    others = ("run.sh", "src/code.py", "src/data.bin")
    assert all((frozen / name).samefile(repository / name) for name in others)
    assert not (frozen / "README.md").samefile(repository / "README.md")
    (inside(prepared[0]) / "README.md").write_text("Changed.\n")
    assert prepared[0].changes().of("modified") == ("README.md",)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_no_file_takes_a_link_one_is_tried(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    tried = []

    def link(name: str, *args: object, **kwargs: object) -> None:
        tried.append(name)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    shutil.rmtree(repository / ".git")
    prepared = make(repository, subpath="src")
    assert len(tried) == 1
    assert sorted(path.name for path in inside(prepared).glob("src/*")) == ["code.py", "data.bin"]
    assert len(prepared.changes()) == 0


def test_nothing_is_written_into_a_file_that_is_there_already(tmp_path: Path) -> None:
    """It may be another name of somebody's."""
    (tmp_path / "from").mkdir()
    (tmp_path / "from/file").write_text("ours\n")
    (tmp_path / "into").mkdir()
    (tmp_path / "theirs").write_text("theirs\n")
    (tmp_path / "into/file").hardlink_to(tmp_path / "theirs")
    entries = plan(Repository(path=str(tmp_path / "from"))).selection.entries
    root, target = (os.open(tmp_path / name, os.O_RDONLY) for name in ("from", "into"))
    try:
        with pytest.raises(SandboxError, match="file"):
            staging.stage(root, entries, target, links=False)
    finally:
        os.close(root)
        os.close(target)
    assert (tmp_path / "theirs").read_text() == "theirs\n"


def test_a_copy_is_nobody_elses_before_it_has_its_mode(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, modes = Filling.fill, []

    def fill(self: Filling, reader: int, writer: int, size: int) -> None:
        modes.append(os.fstat(writer).st_mode & 0o777)
        real(self, reader, writer, size)

    monkeypatch.setattr(Filling, "fill", fill)
    before = os.umask(0)
    try:
        prepared = make(repository, file_mode=0o644)
    finally:
        os.umask(before)
    assert set(modes) == {0o600}
    assert (inside(prepared) / "README.md").stat().st_mode & 0o777 == 0o644


def test_directories_have_the_times_of_the_originals(repository: Path, make: Make) -> None:
    when = 1_000_000_000_123_456_789
    os.utime(repository / "src", ns=(when, when))
    os.utime(repository, ns=(when, when + 1))
    work = inside(make(repository))
    assert (work / "src").stat().st_mtime_ns == when
    assert work.stat().st_mtime_ns == when + 1


def test_copies_have_the_times_of_the_originals(repository: Path, make: Make) -> None:
    when = 1_000_000_000_123_456_789
    for name in ("README.md", "link"):
        os.utime(repository / name, ns=(when, when), follow_symlinks=False)
    work = inside(make(repository, file_mode=0o600))
    assert (work / "README.md").stat().st_ino != (repository / "README.md").stat().st_ino
    assert [(work / name).lstat().st_mtime_ns for name in ("README.md", "link")] == [when] * 2


@pytest.mark.parametrize("ranges", [True, False])
def test_a_plain_copy_keeps_the_holes_of_a_sparse_file(
    ranges: bool, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk image of many GiB takes the room that it takes in the original."""

    def refused(*args: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    if not ranges:
        monkeypatch.setattr(os, "copy_file_range", refused)
    root = tmp_path / "images"
    root.mkdir()
    for name, places in {"none": (), "ends": (0, 63 << 20), "middle": (31 << 20,)}.items():
        with (root / name).open("wb") as file:
            for place in places:
                file.seek(place)
                file.write(os.urandom(1 << 20))
            file.truncate(64 << 20)
    prepared = make(root)
    assert snapshot(inside(prepared)) == snapshot(root)
    blocks = {path.name: path.stat().st_blocks for path in inside(prepared).iterdir()}
    assert max(blocks.values()) < (4 << 20) // 512, blocks


def test_one_thread_that_fails_ends_all(
    wide: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest_of_tree(wide)
    real, calls = os.copy_file_range, []

    def full(*args: Any) -> int:
        calls.append(args)
        if len(calls) == 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(ResourceExhaustedError) as caught:
        make(wide)
    assert (wide / caught.value.context["path"]).is_file()
    assert not list((wide.parent / "state").glob("workspace-*"))
    assert digest_of_tree(wide) == before


def test_a_file_replaced_before_it_is_linked_is_found_out(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def swapped(name: str, *args: Any, **options: Any) -> None:
        if name == "code.py":
            (repository / "src/new").write_text("another file\n")
            (repository / "src/new").replace(repository / "src/code.py")
        real(name, *args, **options)

    monkeypatch.setattr(os, "link", swapped)
    with pytest.raises(StateError, match=r"src/code\.py.*replaced"):
        make(repository)
    assert not list((repository.parent / "state/.layers").iterdir())


def test_a_file_replaced_by_a_link_before_it_is_linked_gives_nobody_another_name(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for a moment: what the link leads to is somebody else's."""
    real, names = os.link, []
    victim = repository.parent / "victim"
    victim.touch()

    def swapped(name: str, *args: Any, **options: Any) -> None:
        if name == "code.py":
            (repository / "src/code.py").unlink()
            (repository / "src/code.py").symlink_to(victim)
        real(name, *args, **options)
        names.append(victim.stat().st_nlink)

    monkeypatch.setattr(os, "link", swapped)
    with pytest.raises(StateError, match=r"src/code\.py.*replaced"):
        make(repository)
    assert set(names) == {1}


def test_a_tree_with_one_copy_is_not_all_links_whichever_thread_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_FEW", 1)
    monkeypatch.setattr(staging, "_THREADS", 2)
    real = os.link

    def refused(name: str, *args: Any, **options: Any) -> None:
        if name == "copied":
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        real(name, *args, **options)

    monkeypatch.setattr(os, "link", refused)
    for path in ("from/one", "from/two", "into"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "from/one/copied").touch()
    (tmp_path / "from/two/linked").touch()
    entries = plan(Repository(path=str(tmp_path / "from"))).selection.entries
    root, target = (os.open(tmp_path / name, os.O_RDONLY) for name in ("from", "into"))
    try:
        assert not staging.stage(root, entries, target).linked
    finally:
        os.close(root)
        os.close(target)


def test_a_mode_that_is_changed_in_the_original_of_a_changed_file_is_told(
    repository: Path, make: Make
) -> None:
    prepared = make(repository)
    (inside(prepared) / "run.sh").write_text("changed\n")
    (repository / "run.sh").chmod(0o600)
    with pytest.raises(StateError, match=r"run\.sh had its mode changed"):
        prepared.changes()


def test_a_file_that_grows_while_it_is_copied_is_found_out(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.copy_file_range

    def grown(*args: Any) -> int:
        with (repository / "src/data.bin").open("ab") as file:
            file.write(b"more")
        return real(*args)

    monkeypatch.setattr(os, "copy_file_range", grown)
    with pytest.raises(StateError, match="changed while it was copied"):
        make(repository, include=("data.bin",), file_mode=0o600)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_million_files_and_one_more(tmp_path: Path) -> None:
    root = tmp_path / "many"
    for directory in range(1001):
        place = root / f"d{directory}"
        place.mkdir(parents=True)
        for file in range(1000):
            os.close(os.open(place / f"f{file}", os.O_CREAT | os.O_WRONLY))
    with pytest.raises(ResourceExhaustedError, match="over 1000000 entries") as caught:
        plan(Repository(path=str(root)))
    assert caught.value.context["path"].startswith("d")
