"""Files that are linked while the tree is walked: the same layer as without, or a typed error."""

import io
import marshal
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import StateError
from ringfence.workspace import linker, linking
from ringfence.workspace.stopping import Check
from tests.unit.workspace.conftest import Make, digest_of_tree, inside


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> list[linking.Begun]:
    """Trees of any size are worth it, on any machine; what each linking made."""
    made: list[linking.Begun] = []
    real = linking.Linking.finish

    def finish(self: linking.Linking, check: Check) -> linking.Begun:
        made.append(real(self, check))
        return made[-1]

    monkeypatch.setattr(linking, "FEW", 1)
    monkeypatch.setattr(linking, "WRITE_BYTES", 0)
    monkeypatch.setattr(linking.Linking, "finish", finish)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    return made


def names(root: Path) -> dict[str, tuple[int, bytes | None]]:
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else None,
        )
        for path in root.rglob("*")
        if ".git" not in path.parts
    }


def test_the_layer_is_the_same(
    repository: Path, make: Make, early: list[linking.Begun], monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "deep/deeper").mkdir(parents=True, mode=0o750)
    (repository / "deep/deeper/bad\udcff\n").write_text("x")
    (repository / "set-id").touch()
    (repository / "set-id").chmod(0o4755)
    before = digest_of_tree(repository)
    first = make(repository)
    assert set(early[0]["src"]) == {"code.py", "data.bin"}
    assert "set-id" not in early[0][""]
    monkeypatch.setattr(linking, "FEW", 1 << 30)
    second = make(repository)
    assert early[1] == {}
    assert names(inside(first)) == names(inside(second))
    assert {e[:7] for e in first.recorded().values()} == {e[:7] for e in second.recorded().values()}
    assert digest_of_tree(repository) == before


class Short:
    """A pipe whose writes a signal cuts short each time."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self.close, self.flush, self.fileno = pipe.close, pipe.flush, pipe.fileno

    @property
    def closed(self) -> bool:
        return bool(self._pipe.closed)

    def write(self, data: Any) -> int:
        return int(self._pipe.write(memoryview(data)[:7]))


def test_what_a_signal_cuts_short_is_written_on(
    repository: Path, make: Make, early: list[linking.Begun], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = linking.Linking._started

    def started(self: linking.Linking) -> Any:
        process = start(self)
        process.stdin = Short(process.stdin)  # type: ignore[assignment]
        return process

    monkeypatch.setattr(linking.Linking, "_started", started)
    make(repository)
    assert set(early[0]["src"]) == {"code.py", "data.bin"}


def test_what_is_hidden_in_the_end_is_taken_out_again(
    repository: Path, make: Make, early: list[linking.Begun]
) -> None:
    """A hard link to a hidden file is known for one only when the whole tree was seen."""
    (repository / "lone").mkdir()
    (repository / "lone/harmless").hardlink_to(repository / ".env")
    layers = repository.parent / "state/.layers"
    prepared = make(repository)
    assert "harmless" in early[0]["lone"]
    assert not list(inside(prepared).rglob("harmless"))
    assert not list(layers.rglob("harmless"))
    assert (inside(prepared) / "lone").is_dir()


@pytest.mark.parametrize("program", [["false"], ["sh", "-c", "exec sleep 0"]])
def test_a_process_that_fails_is_done_without(
    program: list[str],
    repository: Path,
    make: Make,
    early: list[linking.Begun],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The files are staged afterwards; one that says it is done and is not is found out."""
    monkeypatch.setattr(linking, "_program", lambda: program)
    if program == ["false"]:
        assert (inside(make(repository)) / "src/code.py").is_file()
        assert early == [{}]
    else:
        with pytest.raises(StateError):
            make(repository)
    assert not list((repository.parent / "state").glob("workspace-1"))


REFUSING = """
import os, runpy, sys
real = os.link
def link(name, *rest, **fields):
    if name == "code.py" or name.startswith("bad"):
        raise PermissionError(1, "Operation not permitted", name)
    real(name, *rest, **fields)
os.link = link
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def test_files_that_may_not_be_linked_are_staged_and_the_links_stay(
    repository: Path, make: Make, early: list[linking.Begun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an ordinary user may not link another's files: all links were lost for one of them."""
    (repository / "bad\udcff\n").write_text("x")
    program = [sys.executable, "-c", REFUSING, linker.__file__]
    monkeypatch.setattr(linking, "_program", lambda: program)
    work = inside(make(repository))
    assert early[0]["src"] == ["data.bin"]
    assert set(early[0][""]) == {"README.md", "run.sh"}
    for name in ("src/code.py", "src/data.bin", "bad\udcff\n"):
        assert (work / name).read_bytes() == (repository / name).read_bytes()


def test_a_file_that_was_replaced_is_found_out(
    repository: Path, make: Make, early: list[linking.Begun], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = linking.Linking.add

    def swapped(self: linking.Linking, path: str, entries: Any) -> None:
        if path == "src":
            (repository / "new").write_text("another file\n")
            (repository / "new").replace(repository / "src/code.py")
        real(self, path, entries)

    monkeypatch.setattr(linking.Linking, "add", swapped)
    with pytest.raises(StateError, match=r"src/code\.py.*replaced"):
        make(repository)
    assert not list((repository.parent / "state/.layers").iterdir())


def test_the_program_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away/file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "away")
    (tmp_path / "copy/link").mkdir(parents=True)
    source, target = (os.open(tmp_path / name, os.O_RDONLY) for name in ("tree", "copy"))
    pieces = io.BytesIO(marshal.dumps(("link", [], ["file"], [0])))
    try:
        with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
            linker.link(source, target, pieces)
    finally:
        os.close(source)
        os.close(target)
    assert not (tmp_path / "copy/link/file").exists()


def test_a_link_is_not_taken_for_the_file_whose_inode_it_has(tmp_path: Path) -> None:
    """A file system may give the inode of a file that is gone to the next one that is made."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "copy").mkdir()
    (tmp_path / "tree/name").symlink_to("/etc/passwd")
    inode = (tmp_path / "tree/name").lstat().st_ino
    source, target = (os.open(tmp_path / name, os.O_RDONLY) for name in ("tree", "copy"))
    try:
        with pytest.raises(OSError, match="replaced"):
            linker.link(source, target, io.BytesIO(marshal.dumps(("", [], ["name"], [inode]))))
    finally:
        os.close(source)
        os.close(target)
