"""`diff` and `apply`: since when, and in what form, what changed is told."""

import io
import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from ringfence import ledger, workspace
from ringfence.cli import diff
from ringfence.cli.app import run
from ringfence.workspace import applied
from ringfence.workspace.patch import Patch

DATA = b"+a\x1b[2J\xff\n"


class Changes(list[Any]):
    """One file that was moved, and one that was refused."""

    refused = {"link": "it leads out"}  # noqa: RUF012 - it stays

    def __init__(self) -> None:
        moved = {"path": "b\n", "kind": "renamed", "old_path": "a", "size": 1, "digest": None}
        super().__init__([SimpleNamespace(**moved)])


class Workspace:
    """What was asked of it."""

    directory = "/nowhere"

    def __init__(self) -> None:
        self.since: list[str] = []

    def changes(self, *, since: str) -> Changes:
        self.since.append(since)
        return Changes()

    def patch(self, *, since: str = "repository") -> Patch:
        self.since.append(since)
        return Patch(DATA, " b\x1b | 1 +\n")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Workspace:
    it = Workspace()
    monkeypatch.setattr(diff, "_workspace", lambda _name: it)
    return it


@pytest.mark.parametrize(
    ("words", "since"), [("", "repository"), ("--parent", "parent"), ("--parent --json", "parent")]
)
def test_a_fork_is_compared_with_its_parent_when_that_is_asked_for(
    words: str, since: str, found: Workspace, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(["diff", "ab12", *words.split()]) == 0
    assert found.since == [since]
    out = capfdbinary.readouterr().out
    if "--json" not in words:
        assert out == DATA
        return
    document = json.loads(out)
    assert document["refused"] == {"link": "it leads out"}
    [change] = document["changes"]
    assert (change["path"], change["old_path"], change["kind"]) == ("b\n", "a", "renamed")


def test_a_patch_on_a_terminal_and_its_summary_are_escaped(
    found: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, shown in ((["--stat"], b" b\\x1b | 1 +\n"), ([], b"+a\\x1b[2J\xff\n")):
        written = io.BytesIO()
        stream = io.TextIOWrapper(written, "utf-8")
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(sys, "stdout", stream)
        assert run(["diff", "ab12", *words]) == 0
        stream.flush()
        assert written.getvalue() == shown


@pytest.mark.parametrize(
    ("before", "shown"), [([], " b\\x1b | 1 +\n"), (["b"], "renamed b\\x0a\n")]
)
def test_what_is_applied_is_a_summary_and_later_what_came_since(
    before: list[str], shown: str, found: Workspace, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(applied, "read", lambda _directory: before)
    monkeypatch.setattr(workspace, "apply", lambda _found: Changes(), raising=False)
    assert run(["apply", "ab12"]) == 0
    assert capfd.readouterr().out == shown
    assert run(["apply", "ab12", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["changes"][0]["path"] == "b\n"


@pytest.mark.parametrize(
    ("place", "live", "said"),
    [(None, True, "has no workspace"), ({}, False, "has ended, and its workspace with it")],
)
@pytest.mark.parametrize("verb", ["diff", "apply"])
def test_a_sandbox_without_a_workspace_is_told_so(
    verb: str, place: object, live: bool, said: str, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    entry = SimpleNamespace(workspace=place, live=live, record=SimpleNamespace(id="ab12"))
    book = SimpleNamespace(get=lambda _name: entry)
    monkeypatch.setattr(ledger.Ledger, "default", lambda: book)
    assert run([verb, "ab"]) == 125
    assert f"sandbox ab12 {said}" in capfd.readouterr().err
