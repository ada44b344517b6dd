"""Git's index, read and written without git."""

import os
import struct
from pathlib import Path

import pytest

from ringfence.workspace import index
from tests.unit.workspace.conftest import git

NAMES = ("a", "b" * 300, "c\nd", os.fsdecode(b"e\xff"), "f/g/h", "f/g/i")


@pytest.fixture
def tracked(repository: Path) -> Path:
    """A repository with odd names, long ones, and one that is a side of a merge."""
    for name in NAMES:
        place = repository / Path(*[part[:200] for part in name.split("/")])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(name, errors="surrogateescape")
    git(repository, "add", ".")
    git(repository, "update-index", "--skip-worktree", "a")
    git(repository, "update-index", "--assume-unchanged", "f/g/h")
    return repository


@pytest.mark.parametrize("version", ["2", "4"])
def test_what_is_written_is_what_git_reads(tracked: Path, version: str) -> None:
    git(tracked, "update-index", "--index-version", version)
    place = tracked / ".git/index"
    wanted = git(tracked, "ls-files", "-s", "-v", "-z", "--debug")
    entries = index.read(place.read_bytes(), 20)
    place.write_bytes(index.write(entries))
    assert git(tracked, "ls-files", "-s", "-v", "-z", "--debug") == wanted
    assert index.read(place.read_bytes(), 20) == entries


def test_an_entry_counts_as_checked_out(tracked: Path) -> None:
    place = tracked / ".git/index"
    entries = index.read(place.read_bytes(), 20)
    entries.skip(entries.paths)
    place.write_bytes(index.write(entries))
    (tracked / "f/g/i").unlink()
    assert git(tracked, "status", "--porcelain", "-uno").replace("A  ", "").count("D") == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"DIRX" + data[4:],
        lambda data: data[:8] + b"\xff\xff\xff\xff" + data[12:],
        lambda data: data[:60],
        lambda data: data[:-20] + b"link\0\0\0\0" + data[-20:],
    ],
)
def test_what_is_no_whole_index_is_told(tracked: Path, spoil: object) -> None:
    data = (tracked / ".git/index").read_bytes()
    with pytest.raises(ValueError, match="index"):
        index.read(spoil(data), 20)  # type: ignore[operator]


@pytest.mark.parametrize("number", [b"\x05", b"\xff" * 3 + b"\x7f", b"\xff" * 4000 + b"\x7f"])
def test_a_name_that_goes_on_from_more_than_was_there_is_told(number: bytes) -> None:
    """Each takes no longer than its bytes, however large the number is that they spell."""
    entry = bytes(60) + (1).to_bytes(2, "big") + number + b"name\0"
    with pytest.raises(ValueError, match="index"):
        index.read(b"DIRC" + struct.pack(">II", 4, 1) + entry + bytes(20), 20)


def test_a_name_that_no_file_can_have_is_told() -> None:
    """Else few bytes of a hostile index would stand for many."""
    entry = bytes(60) + (0xFFF).to_bytes(2, "big") + b"\0" + b"x" * 5000 + b"\0"
    with pytest.raises(ValueError, match="index"):
        index.read(b"DIRC" + struct.pack(">II", 4, 1) + entry + bytes(20), 20)


def test_what_stands_beside_the_entries_is_not_carried() -> None:
    """A length that is not the path's, bytes after it, and the bit of flags that are not there."""
    path, flags = b"a/name", 0x4000 | 3
    entry = bytes(60) + flags.to_bytes(2, "big") + path + b"\0" + b"spy"
    data = b"DIRC" + struct.pack(">II", 2, 1) + entry + bytes(20)
    written = index.write(index.read(data, 20))
    right = bytes(60) + (0x4000 | 6).to_bytes(2, "big") + bytes(2) + path + bytes(2)
    assert written[:-20] == b"DIRC" + struct.pack(">II", 3, 1) + right
    plain = bytes(60) + len(path).to_bytes(2, "big") + path + b"\0" + b"spy"
    written = index.write(index.read(data.replace(entry, plain), 20))
    assert written[12:-20] == plain[:-3] + bytes(3)


def test_entries_are_written_in_the_order_of_their_bytes(tracked: Path) -> None:
    """Characters and surrogates have another one."""
    place = tracked / ".git/index"
    entries = index.read(place.read_bytes(), 20)
    names = ["f", "f.g", "\U0001f600", os.fsdecode(b"\xff"), "\uffee", "A"]
    entries.drop(["a"])
    for name in names:
        entries.add(name, 0o100644, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")
    place.write_bytes(index.write(entries))
    listed = git(tracked, "ls-files", "-z").split("\0")[:-1]
    assert sorted(listed, key=os.fsencode) == listed
    assert set(names) < set(listed)
    assert "a" not in listed
