"""The ledger keeps what must be found again, and lets one of two racing words win."""

import contextlib
import fcntl
import gc
import json
import multiprocessing
import multiprocessing.synchronize
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ringfence.backends.base import Record
from ringfence.errors import (
    AlreadyExistsError,
    NotFoundError,
    ResourceExhaustedError,
    StateError,
    UnsupportedError,
)
from ringfence.ledger import Busy, Ledger, Owner, connection
from ringfence.ledger.connection import Kept
from ringfence.ledger.listing import info_of
from ringfence.spec import SandboxSpec, State


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def a_record(name: str = "rf-one", ends: float | None = None) -> Record:
    spec = SandboxSpec(image="debian", env={"A": "b"}, labels={"task": "7"})
    return Record(name, "mock", "", "n1", "socket", spec, time.time(), ends, b"\x00\xff")


def test_an_entry_comes_back_as_it_was_written(ledger: Ledger) -> None:
    owner = Owner.me()
    ledger.add(a_record(), owner=owner, workspace={"directory": "/x"})
    [entry] = Ledger(ledger.path).live()
    assert entry.record == a_record().__class__(
        **{name: getattr(entry.record, name) for name in entry.record.__slots__}
    )
    assert entry.record.spec == a_record().spec
    assert entry.record.marker == b"\x00\xff"
    assert entry.owner == owner
    assert entry.workspace == {"directory": "/x"}


def test_a_repository_that_came_later_is_in_the_record(ledger: Ledger) -> None:
    """Whoever reaps undoes its workspace; one that has ended gets none."""
    ledger.add(a_record(), owner=Owner.me())
    spec = SandboxSpec(repository="/project")
    ledger.changed("rf-one", spec, {"directory": "/x"})
    ledger.changed("rf-one", spec)
    entry = Ledger(ledger.path).get("rf-one")
    assert (entry.record.spec, entry.workspace) == (spec, {"directory": "/x"})
    ledger.end("rf-one", "deleted")
    with pytest.raises(StateError):
        ledger.changed("rf-one", spec, {"directory": "/x"})


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    """Variables of sandboxes are in it; a file that an earlier version left open is closed."""
    for name, before in (("new", None), ("old", 0o644)):
        path = tmp_path / name
        if before is not None:
            sqlite3.connect(path).close()
            path.touch()
            path.chmod(before)
        ledger = Ledger(path)
        ledger.add(a_record(), owner=None)
        found = [file for file in tmp_path.iterdir() if file.name.startswith(name)]
        assert len(found) >= 3
        assert [file.name for file in found if file.stat().st_mode & 0o077] == []


def test_the_beginning_of_an_id_is_enough_when_it_is_of_one(ledger: Ledger) -> None:
    for name in ("abc1", "abc2", "abc"):
        ledger.add(a_record(name), owner=None)
    assert ledger.get("abc1").record.id == "abc1"
    assert ledger.get("abc").record.id == "abc"
    for wrong in ("ab", "x", "", "%", "abc_"):
        with pytest.raises(NotFoundError):
            ledger.get(wrong)


def test_an_id_is_taken_once(ledger: Ledger) -> None:
    ledger.add(a_record(), owner=None)
    with pytest.raises(AlreadyExistsError):
        ledger.add(a_record(), owner=None)


def test_the_first_word_on_how_it_ended_stays(ledger: Ledger) -> None:
    ledger.add(a_record(), owner=None)
    assert ledger.end("rf-one", "deleted")
    assert not ledger.end("rf-one", "lifetime")
    assert ledger.get("rf-one").reason == "deleted"
    assert ledger.live() == []


def test_an_ended_sandbox_is_not_extended(ledger: Ledger) -> None:
    ledger.add(a_record(ends=1.0), owner=None)
    ledger.end("rf-one", "lifetime")
    with pytest.raises(StateError):
        ledger.extend("rf-one", time.time() + 60)


def test_of_an_extension_and_an_expiry_one_wins(ledger: Ledger) -> None:
    for number in range(20):
        name = f"rf-{number}"
        ledger.add(a_record(name, ends=1.0), owner=None)
        extended: list[bool] = []

        def extend(name: str = name, extended: list[bool] = extended) -> None:
            try:
                ledger.extend(name, 9e9)
                extended.append(True)
            except StateError:
                extended.append(False)

        thread = threading.Thread(target=extend)
        thread.start()
        ledger.end(name, "lifetime")
        thread.join()
        entry = ledger.get(name)
        assert not entry.live
        assert (entry.record.ends == 9e9) == extended[0]


def test_old_ends_are_forgotten_and_live_ones_never(ledger: Ledger) -> None:
    ledger.add(a_record("old"), owner=None)
    ledger.add(a_record("live"), owner=None)
    ledger.end("old", "deleted")
    assert ledger.forget(time.time() + 1) == 1
    assert [entry.record.id for entry in ledger.all()] == ["live"]


def test_a_ledger_of_a_newer_version_is_refused(ledger: Ledger) -> None:
    with sqlite3.connect(ledger.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = open_files(ledger.path)
    with pytest.raises(StateError, match="newer") as told:
        Ledger(ledger.path)
    assert told.traceback  # what raised is still referred to
    assert open_files(ledger.path) == before


def open_files(path: Path) -> int:
    """How many descriptors of this process there are of a ledger's files; SQLite may use one of an
    earlier connection again for the first of them."""
    return sum(
        os.path.realpath(descriptor).startswith(str(path))
        for descriptor in Path("/proc/self/fd").iterdir()
    )


def test_a_connection_that_failed_is_not_used_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "file", lambda connection, path: None)
    with pytest.raises(sqlite3.OperationalError), kept.transaction() as first:
        first.execute("nonsense")
    with kept.transaction() as second:
        assert second is not first
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        first.execute("SELECT 1")


def test_a_ledger_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ResourceExhaustedError, match="RINGFENCE_STATE_DIR"):
        Ledger(tmp_path / "missing" / "ledger.sqlite")


def test_a_ledger_that_another_process_holds_is_no_full_disk(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a transaction, or its lock, as one that a debugger has stopped does: nobody waits for it
    for ever."""
    monkeypatch.setattr(connection, "_BUSY_SECONDS", 0.01)
    monkeypatch.setattr(connection, "_TURN_SECONDS", 0.01)
    held = r"held by another process: .*; try again later.*fuser .*ledger\.sqlite"
    with contextlib.closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ResourceExhaustedError, match=held):
            Ledger(ledger.path).add(a_record(), owner=None)
    with Path(f"{ledger.path}.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ResourceExhaustedError, match=held):
            Ledger(ledger.path)
    Ledger(ledger.path).add(a_record(), owner=None)


def test_who_may_not_be_held_up_does_nothing_where_it_had_to_wait(ledger: Ledger) -> None:
    """For another process, another thread, or the file to be opened again."""
    ledger.add(a_record("rf-zero"), owner=None)
    hasty = ledger.hasty()
    with contextlib.closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy):
            hasty.add(a_record(), owner=None)
    with ledger._transaction(), pytest.raises(Busy):
        hasty.add(a_record(), owner=None)
    ledger.path.rename(f"{ledger.path}-before")
    with pytest.raises(Busy):
        hasty.add(a_record(), owner=None)
    ledger.add(a_record("rf-two"), owner=None)
    hasty.add(a_record(), owner=None)
    assert {entry.record.id for entry in ledger.all()} == {"rf-one", "rf-two"}


def test_who_waits_does_so_after_somebody_who_did_not(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.add(a_record("rf-zero"), owner=None)
    ledger.hasty().add(a_record(), owner=None)
    with contextlib.closing(
        sqlite3.connect(ledger.path, isolation_level=None, check_same_thread=False)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.1, other.rollback).start()
        assert ledger.end("rf-one", "deleted")


def test_its_journal_does_not_grow_with_all_that_was_ever_written(ledger: Ledger) -> None:
    """Nor is it emptied by who may not be held up: that waits for the disk."""
    journal, sizes, waited = Path(f"{ledger.path}-wal"), [], 0
    for number in range(1500):
        record = a_record(f"rf-{number}")
        try:
            ledger.hasty().add(record, owner=None)
        except Busy:
            waited += 1
            ledger.add(record, owner=None)
        sizes.append(journal.stat().st_size)
    assert 1 <= waited <= 10
    assert sizes[-1] <= 1.5 * sizes[300]
    assert len(ledger.all()) == 1500


def test_who_may_not_be_held_up_never_begins_the_journal(tmp_path: Path) -> None:
    """With its header SQLite waits for the disk: neither in a file that was just opened, nor after
    what was written was moved into it."""

    def header() -> bytes:
        with Path(f"{ledger.path}-wal").open("rb") as journal:
            return journal.read(32)

    Ledger(tmp_path / "ledger.sqlite")
    ledger, begun = Ledger(tmp_path / "ledger.sqlite"), {b""}
    assert header() == b""
    for number in range(600):
        before = header()
        try:
            ledger.hasty().add(a_record(f"rf-{number}"), owner=None)
        except Busy:
            ledger.add(a_record(f"rf-{number}"), owner=None)
        else:
            assert header() == before
        begun.add(header())
    assert len(begun) == 4


def test_its_journal_does_not_grow_with_processes_that_come_and_go(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each writes little, and one that has the ledger open all the time keeps SQLite from moving
    it into the file as they go."""
    monkeypatch.setattr(connection, "_JOURNAL_BYTES", 2**16)
    for number in range(100):
        Ledger(ledger.path).add(a_record(f"rf-{number}"), owner=None)
    assert Path(f"{ledger.path}-wal").stat().st_size < 2**17
    assert len(ledger.all()) == 100


def test_a_journal_that_somebody_reads_is_begun_anew_soon_after_that(ledger: Ledger) -> None:
    with contextlib.closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
        ledger.add(a_record(), owner=None)
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM sandboxes").fetchone()
        for number in range(256):
            ledger.add(a_record(f"rf-{number}"), owner=None)
        other.rollback()
        before = Path(f"{ledger.path}-wal").read_bytes()[:32]
        for number in range(256, 256 + 20):
            ledger.add(a_record(f"rf-{number}"), owner=None)
        assert Path(f"{ledger.path}-wal").read_bytes()[:32] != before


def test_who_may_not_be_held_up_leaves_it_to_who_may_to_tell_what_fails(ledger: Ledger) -> None:
    """To close the file may take long: SQLite then moves what was written into it."""
    ledger.add(a_record(), owner=None)
    ledger._kept._connection.execute("DROP TABLE sandboxes")  # type: ignore[union-attr]
    with pytest.raises(Busy):
        ledger.hasty().end("rf-one", "deleted")
    assert ledger._kept._connection is not None
    with pytest.raises(StateError, match="damaged"):
        ledger.end("rf-one", "deleted")


def test_a_damaged_ledger_says_so(ledger: Ledger, tmp_path: Path) -> None:
    """One that is none from the start, and one that is damaged while it is open."""
    garbage = tmp_path / "garbage.sqlite"
    garbage.write_bytes(b"this is no database " * 500)
    with pytest.raises(StateError, match=r"garbage\.sqlite is damaged: .*move it away"):
        Ledger(garbage)
    for number in range(200):
        ledger.add(a_record(f"rf-{number}"), owner=None)
    with sqlite3.connect(ledger.path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    with ledger.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(StateError, match="is damaged"):
        Ledger(ledger.path).all()


class WithoutJson(sqlite3.Connection):
    """As of a SQLite that was built without JSON."""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        return super().execute(sql.replace("json_", "nojson_"), *values)


def test_a_sqlite_without_json_is_no_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said where it is needed; all else goes on without."""
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=WithoutJson))
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.add(a_record(), owner=None)
    for look in (ledger.past, lambda: ledger.live({"task": "7"})):
        with pytest.raises(
            UnsupportedError, match=r"SQLite [\d.]+ .* without JSON.*: use a Python"
        ):
            look()
    assert [entry.record.id for entry in ledger.live()] == ["rf-one"]
    assert ledger.end("rf-one", "deleted")


def test_a_ledger_without_its_table_is_damaged(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(StateError, match="is damaged: no such table"):
        Ledger(tmp_path / "ledger.sqlite").live()


def test_an_owner_is_a_process_not_a_number() -> None:
    me = Owner.me()
    assert me.alive()
    assert not Owner(me.pid, me.start + 1, me.boot).alive()
    assert not Owner(me.pid, me.start, "another boot").alive()
    assert not Owner(2**22 + 1, me.start, me.boot).alive()


def test_a_ledger_of_version_1_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).add(a_record(ends=time.time() - 1), owner=None)
    with sqlite3.connect(path) as connection:
        for column in ("due", "due_boot"):
            connection.execute(f"ALTER TABLE sandboxes DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    [entry] = Ledger(path).live()
    assert entry.due is None
    assert entry.expired()
    assert Ledger(path).get("rf-one").record.id == "rf-one"


def test_a_ledger_goes_on_when_its_file_was_removed(ledger: Ledger) -> None:
    ledger.add(a_record("before"), owner=None)
    for path in ledger.path.parent.glob("ledger.sqlite*"):
        path.unlink()
    assert ledger.live() == []
    ledger.add(a_record("after"), owner=None)
    assert [entry.record.id for entry in Ledger(ledger.path).live()] == ["after"]


def test_a_ledger_that_nobody_has_any_more_closes_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.13 and newer warn of one that is left open; a forked process leaves its parent's,
    which one has where a thread was at it."""
    monkeypatch.setattr(connection, "_FORK_SECONDS", 0.01)
    ledger = Ledger(tmp_path / "l")
    ledger.add(a_record("rf-one"), owner=None)
    kept = ledger._kept._connection
    assert kept is not None
    with ledger._kept._lock:
        child = os.fork()
    if child == 0:
        del ledger
        gc.collect()
        os._exit(0 if kept.execute("SELECT 1").fetchone()[0] == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    del ledger
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        kept.execute("SELECT 1")


def add_in_a_child(ledger: Ledger) -> int:
    """Add one in a process that is forked; how that ended."""
    child = os.fork()
    if child == 0:
        try:
            ledger.add(a_record("childs"), owner=None)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def test_a_forked_process_writes_through_a_connection_of_its_own(ledger: Ledger) -> None:
    ledger.add(a_record("parents"), owner=None)
    assert add_in_a_child(ledger) == 0
    ledger.end("parents", "deleted")
    assert [entry.record.id for entry in ledger.live()] == ["childs"]


def test_what_a_forked_process_writes_outlives_its_parents_connection(ledger: Ledger) -> None:
    """The last to close it removes SQLite's journal, and a process that was forked counts."""
    path = ledger.path
    ledger.add(a_record("parents"), owner=None)
    begun, closed = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ledger.add(a_record("first"), owner=None)
            os.write(begun[1], b".")
            os.read(closed[0], 1)
            ledger.add(a_record("second"), owner=None)
            os._exit(0)
        finally:
            os._exit(1)
    os.read(begun[0], 1)
    assert len(ledger.all()) == 2
    ledger._kept._close()
    os.write(closed[1], b".")
    assert os.waitpid(child, 0)[1] == 0
    for end in (*begun, *closed):
        os.close(end)
    assert {entry.record.id for entry in Ledger(path).all()} == {"parents", "first", "second"}


def test_a_fork_waits_for_no_thread_that_is_at_it_for_long(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_FORK_SECONDS", 0.01)
    with ledger._transaction():
        child = add_in_a_child(ledger)
    assert child == 0
    assert [entry.record.id for entry in ledger.live()] == ["childs"]


def test_threads_take_turns_at_one_connection(ledger: Ledger) -> None:
    def work(number: int) -> None:
        ledger.add(a_record(f"rf-{number}"), owner=None)
        ledger.end(f"rf-{number}", "deleted")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert ledger.live() == []
    assert len(ledger.all()) == 40


def test_processes_that_make_it_at_the_same_moment_wait_for_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for number in range(10):
        directory = tmp_path / str(number)
        directory.mkdir()
        start = context.Event()
        makers = [context.Process(target=_make, args=(directory, start)) for _ in range(6)]
        for maker in makers:
            maker.start()
        start.set()
        for maker in makers:
            maker.join()
        assert [maker.exitcode for maker in makers] == [0] * 6
        assert len(Ledger(directory / "ledger.sqlite").live()) == 6


def _make(directory: Path, start: "multiprocessing.synchronize.Event") -> None:
    start.wait()
    Ledger(directory / "ledger.sqlite").add(a_record(f"rf-{os.getpid()}"), owner=None)


OTHERS = {
    "a field of a newer version": (
        {"image": "debian", "labels": {"task": "7"}, "hologram": 1},
        "hologram",
    ),
    "a limit of a newer version": (
        {"labels": {"task": "7"}, "limits": {"pids": 9, "qubits": 2}},
        "qubits",
    ),
    "a value that is none any more": ({"labels": {"task": "7"}, "profile": "reckless"}, "profile"),
    "a part without what it needs": (
        {"labels": {"task": "7"}, "repository": {"mode": "copy"}},
        "path",
    ),
    "parts in a list": (
        {"labels": {"task": "7"}, "mounts": [{"source": "/x", "color": "red"}]},
        "color",
    ),
    "fields that do not fit together": ({"labels": {"task": "7"}, "detached": True}, "lifetime"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_row_of_another_version_is_read_as_far_as_it_can_be(ledger: Ledger, what: str) -> None:
    """It says what it is, and the others are not its business."""
    spec, word = OTHERS[what]
    for name in ("before", "other", "after"):
        ledger.add(a_record(name, ends=5e9), owner=None, workspace={"directory": "/x"})
    write(ledger, "spec", json.dumps(spec))
    assert [entry.record.id for entry in ledger.live()] == ["before", "other", "after"]
    before, other, after = ledger.all()
    assert (before.problem, after.problem) == (None, None)
    assert word in str(other.problem)
    assert (other.record.backend, other.record.native, other.record.ends) == ("mock", "n1", 5e9)
    assert other.workspace == {"directory": "/x"}
    assert other.record.spec.labels == {"task": "7"}
    assert ledger.get("other").problem == other.problem
    if what == "a limit of a newer version":
        assert other.record.spec.limits.pids == 9


PAST = {
    **{what: json.dumps(spec) for what, (spec, _) in OTHERS.items()},
    **{repr(text): text for text in ("", "{", "[]", "7", "null", '{"a": 1}', '{"labels": []}')},
    "all that is shown": '{"image":"debian","labels":{"task":"7"},"detached":true,"lifetime":60}',
    "a label that is none": '{"labels": {"task": 7, "a": "b"}}',
    "an image that is none": '{"image": ["debian"]}',
    "a repository": '{"repository": {"path": "/project", "ref": "main"}}',
    "variables with all that may be in one": json.dumps({"env": {"A": '"\\\n\u20ac', "B": ""}}),
    "a repository of another version": '{"repository": {"path": "/project", "color": "red"}}',
    **{
        f"what this version refuses: {json.dumps(refused)[:60]}": json.dumps(refused)
        for refused in (
            {"image": ""},
            {"image": " debian"},
            {"image": "d" * 513},
            {"image": "a\0b"},
            {"env": None},
            {"env": ["A"]},
            {"env": {"A": 7}},
            {"env": {"A B": "x"}},
            {"env": {"A": "\0"}},
            {"env": {"A": "x" * 131072}},
            {"labels": None},
            {"labels": {"a b": "x"}},
            {"labels": {"ringfence.x": "x"}},
            {"labels": {"task": "7" * 257}},
            {"labels": {"task": "\0"}},
            {"repository": {"path": None}},
            {"repository": {"path": ""}},
            {"repository": {"path": 7}},
            {"repository": {"path": "a\0b"}},
        )
    },
}


@pytest.mark.parametrize("what", PAST)
def test_what_has_ended_is_listed_as_its_whole_record_would_be(ledger: Ledger, what: str) -> None:
    """It is read more quickly, not differently, whatever version wrote it."""
    ledger.add(a_record("first"), owner=None)
    ledger.add(a_record("other"), owner=Owner.me())
    write(ledger, "spec", PAST[what])
    assert ledger.past() == []
    for name in ("other", "first"):
        ledger.end(name, "deleted")
    listed = [info_of(entry, State.EXITED, "deleted") for entry in ledger.all()]
    assert [info.id for info in listed] == ["first", "other"]
    assert ledger.past() == listed
    chosen = [info for info in listed if info.labels.get("task") == "7"]
    assert ledger.past({"task": "7"}) == chosen


def test_one_that_has_ended_says_when_its_workspace_cannot_be_read(ledger: Ledger) -> None:
    ledger.add(a_record("other"), owner=None)
    write(ledger, "workspace", '["/x"]')
    ledger.end("other", "deleted")
    [info] = ledger.past()
    assert "workspace" in str(info.warning)


def test_the_oldest_is_the_first_whenever_it_was_written_down(ledger: Ledger) -> None:
    for name, created in (("b", 2.0), ("c", 3.0), ("a", 1.0)):
        ledger.add(replace(a_record(name), created=created), owner=None)
    assert [entry.record.id for entry in ledger.live()] == ["a", "b", "c"]
    for name in "cab":
        ledger.end(name, "deleted")
    assert [entry.record.id for entry in ledger.all()] == ["a", "b", "c"]
    assert [info.id for info in ledger.past()] == ["a", "b", "c"]


def test_no_spec_is_validated_to_list_what_has_ended(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But once for all that differ in labels and variables alone."""
    number = 30
    for name in range(number):
        spec = SandboxSpec(env={"A": str(name)}, labels={"task": str(name)}, image=f"debian:{name}")
        ledger.add(replace(a_record(f"rf-{name:02}"), spec=spec), owner=None)
        ledger.end(f"rf-{name:02}", "deleted")
    validated = []
    validate = SandboxSpec.model_validate_json

    def counted(text: str) -> SandboxSpec:
        validated.append(text)
        return validate(text)

    monkeypatch.setattr(SandboxSpec, "model_validate_json", counted)
    monkeypatch.setattr(SandboxSpec, "model_validate", None)
    assert [info.image for info in ledger.past()] == [f"debian:{name}" for name in range(number)]
    assert len(validated) <= 1


def test_labels_choose_whatever_they_are(ledger: Ledger) -> None:
    """All of them, as they are; what is no text matches nothing."""
    odd = {"a/b.c": "x'\"%\\", "task": "ä\U0001f600"}
    ledger.add(replace(a_record(), spec=SandboxSpec(labels=odd)), owner=None)
    for labels, found in (
        (odd, True),
        ({"task": odd["task"]}, True),
        ({"task": "\udc80"}, False),
        ({"$.task": odd["task"]}, False),
        ({"task": odd["task"], "more": ""}, False),
    ):
        assert [entry.record.id for entry in ledger.live(labels)] == ["rf-one"] * found


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '"x"', "null", '{"a": 1}', "\udc80"])
@pytest.mark.parametrize("column", ["spec", "workspace"])
def test_a_row_that_holds_no_such_thing_is_read_all_the_same(
    ledger: Ledger, column: str, text: str
) -> None:
    ledger.add(a_record("other"), owner=None)
    write(ledger, column, text.encode("utf-8", "surrogateescape"))
    [entry] = ledger.live()
    assert entry.record.native == "n1"
    if column == "spec" or text not in ("", "null"):
        assert column in str(entry.problem)


def write(ledger: Ledger, column: str, value: str | bytes) -> None:
    """Have the row of "other" say something else."""
    with sqlite3.connect(ledger.path) as connection:
        connection.execute(f"UPDATE sandboxes SET {column} = ? WHERE id = 'other'", (value,))
    connection.close()
