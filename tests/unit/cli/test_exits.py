"""How a verb ends, and for whom it tells an error: a document for who asked Ringfence for JSON."""

import errno
import json
import threading
from pathlib import Path

import pytest

from ringfence.cli import output, watch
from ringfence.cli.app import run

MOCK = ["run", "--backend", "mock"]
BAD = ["--memory", "1parsec"]


@pytest.mark.parametrize(
    "words",
    [
        [*MOCK, *BAD, "mytool", "--json"],
        [*MOCK, *BAD, "--", "mytool", "--json"],
        ["run", "--backend", "--json", "mytool"],
        ["run", "--cwd=--json", "mytool"],
        ["run", "--cwd", "--json", "mytool"],
        ["exec", "nosuch", "--", "mytool", "--json"],
        ["exec", "nosuch", "mytool", "--json"],
        ["exec", "--", "nosuch", "mytool", "--json"],
        ["exec", "nosuch", "--cwd", "--json", "--", "mytool"],
        ["rm", "--label", "--json"],
        ["digest", "-a", "--json"],
        ["spec", "check", "--", "--json"],
    ],
    ids=" ".join,
)
def test_a_word_that_is_not_for_us_asks_for_no_document(
    words: list[str], state_directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A command's own option, an option's value, a name: standard output stays the command's."""
    assert run(words) in {2, 125}
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.startswith("ringfence: ")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([*MOCK, *BAD, "--json", "mytool"], 125),
        (["exec", "nosuch", "--json", "mytool"], 125),
        (["exec", "--json", "nosuch", "mytool"], 125),
        (["exec", "nosuch", "--json", "--", "mytool"], 125),
        (["rm", "--json"], 2),
        (["digest", "--json", "-a", "x"], 2),
        (["policy", "show", "nosuch", "--json"], 125),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_an_error_is_a_document_where_we_are_asked_for_one(
    words: list[str], code: int, state_directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == code
    told = capfd.readouterr()
    assert json.loads(told.out)["error"]["message"] in told.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["ps", "--json", "--bogus"], "--bogus"),
        (["ps", "--bogus", "--json"], "--bogus"),
        (["ps", "--bogus=x", "-qy", "--json"], "--bogus"),
        (["ps", "--json", "--label"], "--label"),
        (["ps", "--json", "x"], "x"),
        (["ps", "x", "--json"], "x"),
        (["run", "--json"], "COMMAND"),
        (["run", "--cpus", "x", "--json", "--", "true"], "--cpus"),
        (["ls", "--json"], "ID"),
        (["extend", "--json"], "--json"),
        (["audit", "verify", "--json"], "FILE"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_command_line_that_cannot_be_read_is_told_so(
    words: list[str], named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a document where the verb has --json, and it stands where the verb would have taken it."""
    assert run(words) == 2
    told = capfd.readouterr()
    assert "Usage" in told.err or "Error" in told.err
    if words[0] == "extend":
        assert told.out == ""
        return
    error = json.loads(told.out)["error"]
    assert (error["code"], error["op"]) == ("invalid_spec", "usage")
    assert named in error["message"]


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--bogus", "mytool", "--json"],
        ["run", "--cpus", "x", "mytool", "--json"],
        ["exec", "nosuch", "--bogus", "mytool", "--json"],
        ["exec", "--bogus", "nosuch", "mytool", "--json"],
        ["ps", "--bogus", "--label", "--json"],
        ["ps", "--bogus", "--", "--json"],
        ["nosuch", "--json"],
        ["--json", "ps"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_cannot_be_read_asks_for_no_document_in_others_words(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("words", [["ps", "--json", "--bogus"], ["rm", "--json"]], ids=" ".join)
def test_an_error_that_nobody_reads_as_a_document_is_no_traceback(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def unread(_data: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(output, "document", unread)
    monkeypatch.setattr(output, "silence", lambda: None)
    assert run(words) == 141


@pytest.mark.parametrize(
    "words", [["ps"], ["exec", "nosuch", "true"], ["rm", "nosuch"]], ids=" ".join
)
@pytest.mark.usefixtures("state_directory")
def test_where_no_thread_can_be_started_that_is_said(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As in a container that has all the processes that it may have: no traceback."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(output, "silence", lambda: None)
    assert run(words) == 125
    assert "ulimit -u" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "context"),
    [
        (RuntimeError("can't start new thread"), "resource_exhausted", {}),
        (OSError(errno.EMFILE, "Too many", "/x"), "resource_exhausted", {"errno": errno.EMFILE}),
        (PermissionError(errno.EACCES, "Denied", "/x"), "sandbox", {"errno": errno.EACCES}),
        (OSError("of no number"), "sandbox", {}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("words", [["ps", "--json"], ["exec", "--json", "x", "true"]], ids=" ".join)
@pytest.mark.usefixtures("state_directory")
def test_an_error_that_is_none_of_ours_is_a_document_too(
    words: list[str],
    error: Exception,
    code: str,
    context: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise error

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(output, "silence", lambda: None)
    assert run(words) == 125
    told = capfd.readouterr()
    document = json.loads(told.out)["error"]
    assert (document["code"], document["context"]) == (code, context)
    assert told.err == f"ringfence: {document['message']}\n"


def test_a_mistake_of_ours_is_a_traceback_and_no_document(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def mistaken(*_: object) -> int:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(watch, "_stats", mistaken)
    with pytest.raises(RuntimeError, match="a mistake"):
        run(["stats", "--json"])
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("verb", ["exec", "health", "pause", "diff", "ls", "rm", "stats --once"])
def test_what_is_no_text_begins_no_id(
    verb: str, state_directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["true"] if verb == "exec" else []
    assert run([*verb.split(), "a\udcff", *command]) in {1, 125}
    assert r"no sandbox 'a\udcff'" in capfd.readouterr().err


def test_a_help_is_no_document(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["ps", "--json", "--help"]) == 0
    assert "Usage" in capfd.readouterr().out
