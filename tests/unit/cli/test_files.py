"""`ls` and `cp`: what they ask of a sandbox's files, and how they show it."""

import io
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import ringfence
from ringfence.cli import output
from ringfence.cli.app import run
from ringfence.sandbox.entries import FileInfo, Kind

FILE = FileInfo("/w/b\n", Kind.FILE, 12, 0o4644, 1000, 7, 0.0, 1, 1, 8)
DIRECTORY = FILE._replace(path="/w/a", kind=Kind.DIRECTORY, mode=0o755, size=4096)


class Files:
    """Of a sandbox: two entries on two pages; /tmp is a directory, and nothing else is there."""

    cwd = "/w"

    def __init__(self) -> None:
        self.files = self
        self.asked: list[Any] = []
        self.progress: object = None

    async def list(self, path: str, *, cursor: bytes | None, user: str | None) -> Any:
        self.asked.append((path, user))
        entries, further = ([FILE], b"1") if cursor is None else ([DIRECTORY], None)
        return SimpleNamespace(entries=entries, cursor=further)

    async def exists(self, path: str, *, user: str | None) -> bool:
        return path in ("/tmp", "/w", "/f")

    async def stat(self, path: str, *, user: str | None) -> Any:
        return SimpleNamespace(kind="file" if path == "/f" else "directory")

    async def upload(self, *given: object, user: str | None, progress: object) -> None:
        self.asked.append((*map(str, given), user))
        self.progress = progress

    async def download(self, *given: object, user: str | None, progress: object) -> None:
        self.asked.append((*map(str, given), user))
        self.progress = progress


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Files:
    found = Files()

    @asynccontextmanager
    async def opened(**given: object) -> AsyncIterator[Files]:
        assert given["id"] == "ab12"
        yield found

    monkeypatch.setattr(ringfence, "open", opened)
    return found


def test_ls_shows_every_page_by_name_and_asks_for_whom_it_was_told(
    sandbox: Files, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["ls", "ab12"]) == 0
    assert run(["ls", "ab12:/tmp", "-u", "5"]) == 0
    assert capfd.readouterr().out == "a\nb\\x0a\n" * 2
    assert sandbox.asked == [("/w", None)] * 2 + [("/tmp", "5")] * 2
    assert run(["ls", "--json", "ab12"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert [one["path"] for one in shown] == ["/w/a", "/w/b\n"]


def test_ls_in_full_has_mode_owner_size_and_time(
    sandbox: Files, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "localtime", time.gmtime)
    assert run(["ls", "-l", "ab12"]) == 0
    first, second = (line.split() for line in capfd.readouterr().out.splitlines())
    assert first == ["drwxr-xr-x", "1000", "7", "4096", "1970-01-01", "00:00", "a"]
    assert second == ["-rwSr--r--", "1000", "7", "12", "1970-01-01", "00:00", "b\\x0a"]


@pytest.mark.parametrize(
    ("source", "destination", "there"),
    [
        ("tree", "ab12:", "/w/tree"),
        ("tree", "ab12:/tmp", "/tmp/tree"),
        ("tree/", "ab12:/tmp", "/tmp/tree"),
        ("tree/.", "ab12:/tmp", "/tmp/"),
        ("..", "ab12:/tmp", "/tmp/"),
        ("tree", "ab12:/new", "/new"),
        ("tree", "ab12:/new/", "/new/tree"),
        ("tree", "ab12:/f", "/f"),
        ("./a:b", "ab12:/tmp", "/tmp/a:b"),
    ],
)
def test_cp_into_a_sandbox_goes_below_a_directory_and_is_called_as_it_says_else(
    source: str, destination: str, there: str, sandbox: Files
) -> None:
    assert run(["cp", source, destination, "-u", "5"]) == 0
    assert sandbox.asked == [(source, there, "5")]


@pytest.mark.parametrize(
    ("source", "destination", "asked"),
    [
        ("ab12:", "new", ("/w", "new")),
        ("ab12:/tmp/f", ".", ("/tmp/f", "f")),
        ("ab12:/tmp/.", "here", ("/tmp/.", "here")),
        ("ab12:/tmp/", "here", ("/tmp/", "here/tmp")),
    ],
)
def test_cp_out_of_a_sandbox_does_likewise(
    source: str, destination: str, asked: tuple[str, str], sandbox: Files, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert run(["cp", source, destination, "-u", "5"]) == 0
    assert sandbox.asked == [(*asked, "5")]


@pytest.mark.parametrize(
    ("words", "terminal", "told"), [([], True, True), (["-q"], True, False), ([], False, False)]
)
@pytest.mark.parametrize("way", [("tree", "ab12:"), ("ab12:", "/nowhere")])
def test_cp_tells_a_terminal_how_far_it_is_unless_it_is_to_be_quiet(
    way: tuple[str, str], words: list[str], terminal: bool, told: bool, sandbox: Files,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    screen = Console(file=io.StringIO(), force_terminal=terminal)
    monkeypatch.setattr(output, "console", lambda: screen)
    assert run(["cp", *words, *way]) == 0
    assert (sandbox.progress is not None) is told


@pytest.mark.parametrize("words", ["a b", "ab12:/a cd34:/b", "./ab12:a b", ":a b", "/x:a b"])
def test_cp_has_a_sandbox_on_one_side(
    words: str, sandbox: Files, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["cp", *words.split()]) == 2
    assert "one of SRC and DST" in capfd.readouterr().err
    assert sandbox.asked == []
