"""What a person sees is safe to see, and what a script reads is data."""

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.cli import output, shape, watch
from ringfence.cli.app import run
from ringfence.cli.output import span
from ringfence.errors import NotFoundError
from ringfence.spec import ExecResult, ExecUsage, Reason, SandboxInfo, State


@given(st.binary(max_size=200))
def test_no_control_byte_reaches_a_terminal(data: bytes) -> None:
    shown = output.escape(data)
    assert not {*shown} & {*range(9), *range(11, 32), 127}
    assert not any(bytes((0xC2, second)) in shown for second in range(0x80, 0xA0))


def test_newlines_tabs_and_letters_of_any_script_stay() -> None:
    text = "día\t日本\nnaïve".encode()
    assert output.escape(text) == text


def test_an_escape_sequence_is_shown_as_text() -> None:
    assert output.escape(b"\x1b[31mred") == b"\\x1b[31mred"
    assert output.escape_text("a\x9bb\r") == "a\\x9bb\\x0d"


@pytest.mark.parametrize("terminal", [True, False])
def test_only_a_terminal_is_protected_files_get_the_bytes(terminal: bool) -> None:
    shown = output.Escaping(terminal=terminal).shown(b"\x1b[0m")
    assert shown == (b"\\x1b[0m" if terminal else b"\x1b[0m")


def test_a_table_is_aligned_and_its_cells_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("id", "name"), [("1", "a\x1b"), ("22", "b")])
    assert capsys.readouterr().out == "ID  NAME\n1   a\\x1b\n22  b\n"


def test_an_error_is_a_sentence_and_with_json_a_document(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.error(NotFoundError("no sandbox 'x'", op="open"), json=True)
    streams = capsys.readouterr()
    assert streams.err == "ringfence: no sandbox 'x'\n"
    assert json.loads(streams.out)["error"]["code"] == "not_found"


def test_output_that_is_no_text_comes_as_base64_besides() -> None:
    result = ExecResult(("x",), 0, None, Reason.EXITED, b"\xff", b"ok", 1, 2, 0.1, ExecUsage())
    data = result.to_dict()
    assert data["stdout_base64"] == "/w=="
    assert data["stderr"] == "ok"
    assert "stderr_base64" not in data
    json.dumps(data)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (90000, "1d"), (-5, "0s")],
)
def test_a_time_span_is_short(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(None, "-"), (0, "0B"), (1024, "1.0KiB"), (3 << 30, "3.0GiB")]
)
def test_a_size_is_short(count: int | None, text: str) -> None:
    assert output.size(count) == text


def test_a_sparkline_has_a_bar_a_value() -> None:
    assert watch.sparkline([0.0, 0.5, 1.0]) == "▁▄█"
    assert watch.sparkline([0.0, 2.0, 4.0])[-1] == "█"


def test_a_control_character_that_comes_in_two_pieces_is_shown_too() -> None:
    escaping = output.Escaping(terminal=True)
    pieces = [escaping.shown(piece) for piece in (b"a\xc2", b"", b"\x9b2J\xc2", b"\xa9")]
    assert b"".join(pieces) == b"a\xc2\\x9b2J\xc2\xa9"


@pytest.mark.parametrize(
    ("stdout", "says"),
    [(">&-", ""), ("<&- >&- 2>&-", ""), ("> /dev/full", "No space left on device")],
)
def test_a_stdout_that_takes_nothing_is_no_traceback(stdout: str, says: str) -> None:
    """Closed by the caller, or a full disk."""
    program = Path(sys.executable).with_name("ringfence")
    line = f"{program} policy show strict {stdout}"
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == (125 if says else 0)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "code"), [("policy show nosuch", 125), ("rm", 2), ("digest /nonexistent", 1)]
)
@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&1 >&- | false"])
def test_a_stderr_that_takes_nothing_changes_no_exit_code(
    stderr: str, words: str, code: int
) -> None:
    program = Path(sys.executable).with_name("ringfence")
    line = f"(sleep 0.2; {program} {words}; echo $? >&3) {stderr}"
    done = subprocess.run(
        ["sh", "-c", f"exec 3>&1; {line}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == f"{code}\n"


def test_a_verb_whose_output_nobody_reads_is_141_and_silent() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = [str(Path(sys.executable).with_name("ringfence")), "spec", "schema"]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_text_that_turns_the_direction_of_writing_is_shown() -> None:
    assert output.escape_name("a\u202etxt.exe\u2066") == "a\\u202etxt.exe\\u2066"


def test_bytes_that_are_no_text_are_shown() -> None:
    """One of them, as it is, begins a control sequence for a terminal of eight bits."""
    assert output.escape_text(os.fsdecode(b"a\x9b31m\xff")) == "a\\udc9b31m\\udcff"


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", "日".encode() + b" \\udcff"), ("ascii", b"\\u65e5 \\udcff")]
)
def test_what_has_no_place_in_the_locales_encoding_is_shown(
    encoding: str, shown: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding, errors="strict"))
    output.complete()
    output.line("日 \udcff")
    assert written.getvalue() == shown + b"\n"


@pytest.mark.parametrize(
    ("terminal", "shown"),
    [(False, b"a\xff\x1b \xe6\x97\xa5\n"), (True, b"a\\udcff\\x1b \\u65e5\n")],
)
def test_the_digest_of_a_file_has_its_name_byte_by_byte_except_on_a_terminal(
    terminal: bool, shown: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a locale that has no place for it, too."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, "ascii", errors="strict")
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"a\xff\x1b \xe6\x97\xa5")
    Path(name).write_bytes(b"")
    assert run(["digest", name]) == 0
    assert written.getvalue().partition(b"  ")[2] == shown


def test_a_name_stays_on_its_line() -> None:
    assert output.escape_name("a\nb\tc\x1b") == "a\\x0ab\\x09c\\x1b"


@pytest.mark.parametrize(
    "words", [["spec", "schema"], ["repo", "plan", "--json"], ["ps", "--json"]]
)
def test_what_nobody_reads_any_more_ends_every_verb_as_a_shell_shows_a_sigpipe(
    words: list[str], monkeypatch: pytest.MonkeyPatch, state_directory: Path, tmp_path: Path
) -> None:
    def unread(_data: object) -> None:
        raise BrokenPipeError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(output, "document", unread)
    monkeypatch.setattr(output, "silence", lambda: None)
    assert run(words) == 141


def test_what_a_person_reads_has_no_words_of_python(capsys: pytest.CaptureFixture[str]) -> None:
    output.fields({"a": None, "b": True, "c": {"k": "v", "j": "w"}, "d": [], "e": ["x", "y"]})
    assert capsys.readouterr().out == "a  -\nb  yes\nc  j=w,k=v\nd  -\ne  x, y\n"


def test_a_field_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """What a label says is no other field."""
    output.fields({"labels": {"a": "x\nstate  exited\t\x1b"}, "state": "running"})
    shown = capsys.readouterr().out
    assert shown == "labels  a=x\\x0astate  exited\\x09\\x1b\nstate   running\n"


def test_a_column_is_as_wide_as_a_terminal_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", "why"), [("世界", "a"), ("abcd", "b"), ("e\u0301te\u0301x", "c")])
    assert capsys.readouterr().out == "NAME  WHY\n世界  a\nabcd  b\ne\u0301te\u0301x  c\n"


def test_the_times_of_a_sandbox_are_told_from_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that has ended why is of more use than when it would have."""
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    info = SandboxInfo("ab12", "mock", State.RUNNING, None, None, 940.0, 1090.0, True, {})
    assert shape.times(info) == ("1m ago", "in 1m")
    assert shape.times(replace(info, ends=None)) == ("1m ago", None)
    ended = replace(info, state=State.EXITED, reason="lifetime")
    assert shape.times(ended) == ("1m ago", "lifetime")


def test_of_many_that_are_removed_each_is_told_with_json_in_one_document(
    capsys: pytest.CaptureFixture[str], state_directory: Path
) -> None:
    assert run(["rm", "no1", "no2", "--json"]) == 1
    streams = capsys.readouterr()
    document = json.loads(streams.out)
    assert document["deleted"] == []
    assert [error["code"] for error in document["errors"]] == ["not_found", "not_found"]
    assert "no1" in streams.err
    assert "no2" in streams.err


def test_what_an_error_is_noted_with_is_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    """That something is left, say."""
    error = NotFoundError("no room", op="create")
    error.add_note("something of it\x1b[2J could not be removed")
    output.error(error)
    assert capsys.readouterr().err == (
        "ringfence: no room\nringfence: something of it\\x1b[2J could not be removed\n"
    )
