"""A line of the audit log cannot be changed, dropped or put in unseen."""

import hashlib
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from ringfence.errors import ResourceExhaustedError, StateError
from ringfence.ledger.audit import START, AuditLog, digest_of, verify


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = AuditLog(tmp_path / "audit.jsonl", secrets=["hunter2"])
    for number in range(5):
        log.append("exec", "rf-1", args=["sh", "-c", f"echo hunter2 {number}"], exit_code=0)
    return log.path


def test_a_log_as_written_verifies(path: Path) -> None:
    verdict = verify(path)
    assert verdict.ok
    assert verdict.entries == 5
    assert verdict.head == json.loads(path.read_text().splitlines()[-1])["digest"]


def test_an_empty_log_verifies(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    assert verify(tmp_path / "log").head == START


def test_secrets_are_never_written(path: Path) -> None:
    assert "hunter2" not in path.read_text()
    assert "[redacted]" in path.read_text()


def test_a_secret_is_not_written_whatever_it_stands_in(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log", secrets=["hunter2", "hunter2-and-more"])
    log.append("Odd", None, place=Path("/hunter2"), table={"hunter2": ["hunter2-and-more"]})
    [entry] = map(json.loads, log.path.read_text().splitlines())
    assert entry["place"] == "/[redacted]"
    assert entry["table"] == {"[redacted]": ["[redacted]"]}


def test_an_entry_says_what_it_was_given_under_a_digest_that_others_can_make(
    tmp_path: Path,
) -> None:
    log = AuditLog(tmp_path / "log")
    given = {"z": None, "code": 7, "ok": True, "seconds": 0.5, "args": ["ä", None]}
    head = log.append("Odd", "rf-1", **given)
    [entry] = map(json.loads, log.path.read_text().splitlines())
    assert {name: entry[name] for name in given} == given
    del entry["digest"]
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert head == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_a_log_behind_a_link_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    (tmp_path / "log").symlink_to("other")
    with pytest.raises(ResourceExhaustedError, match="cannot be written"):
        AuditLog(tmp_path / "log").append("exec")
    assert (tmp_path / "other").read_text() == ""


@pytest.mark.parametrize("line", range(4))
def test_a_dropped_line_is_found(path: Path, line: int) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:line] + lines[line + 1 :]))
    assert verify(path).line == line + 1


@pytest.mark.parametrize("line", range(5))
def test_a_changed_line_is_found(path: Path, line: int) -> None:
    lines = path.read_text().splitlines()
    entry = json.loads(lines[line])
    entry["exit_code"] = 1
    lines[line] = json.dumps(entry)
    path.write_text("\n".join(lines) + "\n")
    assert verify(path).line == line + 1


def test_a_line_changed_with_its_digest_breaks_the_next(path: Path) -> None:
    lines = path.read_text().splitlines()
    entry = json.loads(lines[1])
    entry["exit_code"] = 1
    entry["digest"] = digest_of(entry)
    lines[1] = json.dumps(entry)
    path.write_text("\n".join(lines) + "\n")
    assert verify(path).line == 3


def test_half_a_line_of_a_crash_is_cut_off_by_the_next_entry(path: Path) -> None:
    with path.open("a") as file:
        file.write('{"seq": 5, "ti')
    assert not verify(path).ok
    AuditLog(path).append("delete", "rf-1")
    assert verify(path).entries == 6


@pytest.mark.parametrize("size", [10, 70_000, 3_000_000])
def test_lines_of_any_length_make_one_chain(path: Path, size: int) -> None:
    """So do those after half a line that is as long."""
    log = AuditLog(path)
    log.append("exec", "rf-1", args=["x" * size])
    log.append("exec", "rf-1")
    with path.open("a") as file:
        file.write('{"args": "' + "x" * size)
    log.append("exec", "rf-1")
    verdict = verify(path)
    assert (verdict.ok, verdict.entries) == (True, 8)


@pytest.mark.parametrize("line", ["garbage", "", "{}", "[]", "7", '{"seq": "1", "digest": 2}'])
def test_nothing_is_written_after_what_is_no_entry(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")
    before = path.read_bytes()
    with pytest.raises(StateError, match="no entry"):
        AuditLog(path).append("exec", "rf-1")
    assert path.read_bytes() == before


def test_an_entry_that_the_disk_took_half_of_is_finished(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, line: plain(file, line[:7]))
        AuditLog(path).append("exec", "rf-1")
    assert (verify(path).ok, verify(path).entries) == (True, 6)


def test_processes_that_write_at_once_make_one_chain(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path / "log",)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert verify(tmp_path / "log").entries == 100


def _write(path: Path) -> None:
    log = AuditLog(path)
    for number in range(25):
        log.append("exec", "rf-1", number=number)


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceExhaustedError):
        AuditLog(tmp_path / "missing" / "log").append("exec")
