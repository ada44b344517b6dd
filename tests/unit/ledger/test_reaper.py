"""What a client leaves behind is found and finished, and nothing else is touched."""

import errno
import fcntl
import itertools
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ringfence.backends.base import Backend, Instance, Record
from ringfence.backends.mock import MockBackend
from ringfence.errors import BackendUnavailableError, ResourceExhaustedError
from ringfence.ledger import Claim, Ledger, Owner, guard, reap
from ringfence.ledger.guard import LOCK, ensure
from ringfence.spec import SandboxSpec, State, Usage
from tests.conftest import wait_for

DEAD = Owner(2**22 + 1, 1, Owner.me().boot)


class Place:
    """A ledger and the one backend that all of its sandboxes are on."""

    def __init__(self, directory: Path) -> None:
        self.ledger = Ledger(directory / "ledger.sqlite")
        self.backend = MockBackend()

    def load(self, name: str, endpoint: str | None) -> Backend:
        return self.backend

    async def sandbox(self, name: str, owner: Owner | None, ends: float | None = None) -> Instance:
        spec = SandboxSpec()
        instance = await self.backend.create(spec, name, await self.backend.facts(spec))
        self.ledger.add(replace(instance.record, ends=ends), owner=owner)
        return instance


def guarded(directory: Path) -> bool:
    """Whether a guard has the lock of a state directory."""
    with (directory / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def test_a_sandbox_whose_client_ended_is_deleted(place: Place) -> None:
    orphan = await place.sandbox("orphan", DEAD)
    kept = await place.sandbox("kept", Owner.me())
    [reaped] = await reap(place.ledger, load=place.load)
    assert (reaped.id, reaped.reason, reaped.error) == ("orphan", "client_lost", None)
    assert await orphan.state() is State.EXITED
    assert await kept.state() is State.RUNNING
    assert place.ledger.get("orphan").reason == "client_lost"
    assert [entry.record.id for entry in place.ledger.live()] == ["kept"]


async def test_a_lifetime_ends_by_the_clock_that_is_given(place: Place) -> None:
    await place.sandbox("short", None, ends=1000.0)
    assert await reap(place.ledger, load=place.load, now=999.0) == []
    [reaped] = await reap(place.ledger, load=place.load, now=1000.0)
    assert reaped.reason == "lifetime"


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
async def test_a_clock_that_is_set_ends_nothing_early_and_keeps_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """What counts is the time since boot, for an end that was extended too."""
    wall, boot = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    passed = shift = 0.0
    monkeypatch.setattr(time, "time", lambda: wall + passed + shift)
    monkeypatch.setattr(time, "clock_gettime", lambda _: boot + passed)
    await place.sandbox("short", None, ends=wall + 60)
    await place.sandbox("extended", None, ends=wall + 60)
    shift = jump
    place.ledger.extend("extended", time.time() + 120)
    assert await reap(place.ledger, load=place.load) == []
    passed = 61.0
    assert [one.id for one in await reap(place.ledger, load=place.load)] == ["short"]
    passed = 121.0
    assert [one.id for one in await reap(place.ledger, load=place.load)] == ["extended"]


async def test_one_removed_by_hand_is_closed_in_the_ledger(place: Place) -> None:
    instance = await place.sandbox("gone", Owner.me())
    await instance.delete()
    [reaped] = await reap(place.ledger, load=place.load)
    assert reaped.reason == "lost"
    assert place.ledger.live() == []


async def test_one_that_ended_at_its_time_was_not_lost(place: Place) -> None:
    """Whoever finds it gone knows its end, though the guest ended it and told nobody."""
    for name, left, reason in (("over", 0.5, "lifetime"), ("early", 600.0, "lost")):
        instance = await place.sandbox(name, None, ends=time.time() + left)
        await instance.delete()
        [reaped] = await reap(place.ledger, load=place.load)
        assert (reaped.id, reaped.reason) == (name, reason)


async def test_one_that_used_up_its_processor_time_is_ended_for_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its guest killed the commands and waits to be seen; one that has time left is let alone, and
    so is one whose holder sees it, and one that cannot be measured. Why is known before it is gone: nobody could tell afterwards."""
    said: list[tuple[str, str | None]] = []
    for name, limit, owner in (
        ("spent", 5.0, None), ("thrifty", 7.0, None), ("held", 5.0, Owner.me()),
        ("unseen", 5.0, None), ("untold", 5.0, None), ("free", None, None)
    ):  # fmt: skip
        instance = await place.sandbox(name, owner, ends=time.time() + 600)
        spec = SandboxSpec(limits={"cpu_time": limit}, detached=owner is None, lifetime=600)
        instance.record = replace(instance.record, spec=spec)
        place.ledger.changed(name, spec)

        async def usage(name: str = name) -> Usage | None:
            if name == "unseen":
                raise BackendUnavailableError("its counters cannot be read")
            return None if name == "untold" else Usage(cpu_seconds=6.5)

        async def delete(name: str = name, delete: Any = instance.delete) -> None:
            said.append((name, place.ledger.get(name).reason))
            await delete()

        monkeypatch.setattr(instance, "usage", usage)
        monkeypatch.setattr(instance, "delete", delete)
    assert await reap(place.ledger, load=place.load, probe=False) == []
    [reaped] = await reap(place.ledger, load=place.load)
    assert (reaped.id, reaped.reason, reaped.error) == ("spent", "cpu_time", None)
    assert place.ledger.get("spent").reason == "cpu_time"
    assert said == [("spent", "cpu_time")]
    assert {entry.record.id for entry in place.ledger.live()} == {
        "thrifty", "held", "unseen", "untold", "free"
    }  # fmt: skip


async def test_a_row_of_another_version_is_reaped_by_what_can_be_read(place: Place) -> None:
    """Its client, its lifetime and where it is; nor does it keep the others from being reaped."""
    for name, owner, ends in (("lost", DEAD, None), ("over", None, 1.0), ("kept", None, 9e9)):
        await place.sandbox(name, owner, ends)
    with sqlite3.connect(place.ledger.path) as connection:
        connection.execute("""UPDATE sandboxes SET spec = '{"hologram": true}'""")
    connection.close()
    await place.sandbox("plain", DEAD)
    reaped = {one.id: (one.reason, one.error) for one in await reap(place.ledger, load=place.load)}
    gone = ("client_lost", None)
    assert reaped == {"lost": gone, "over": ("lifetime", None), "plain": gone}
    assert [entry.record.id for entry in place.ledger.live()] == ["kept"]


@pytest.mark.parametrize(("text", "problem"), [('{"volume": 7}', True), ("{}", False)])
async def test_what_a_sandbox_left_and_cannot_be_found_keeps_no_other_from_being_reaped(
    place: Place, text: str, problem: bool
) -> None:
    """A workspace that another version wrote down in other words."""
    for name in ("first", "other", "last"):
        await place.sandbox(name, DEAD)
    with sqlite3.connect(place.ledger.path) as connection:
        connection.execute("UPDATE sandboxes SET workspace = ? WHERE id = 'other'", (text,))
    connection.close()
    assert ("workspace" in str(place.ledger.get("other").problem)) is problem
    reaped = {one.id: one.error for one in await reap(place.ledger, load=place.load)}
    assert reaped == {"first": None, "other": None, "last": None}


async def test_a_full_disk_keeps_no_sandbox_from_being_reaped(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are deleted; their records are closed by the next sweep that can."""
    orphans = [await place.sandbox(name, DEAD) for name in ("first", "second")]

    def full(sandbox_id: str, reason: str) -> bool:
        raise ResourceExhaustedError("no space is left")

    with monkeypatch.context() as patched:
        patched.setattr(place.ledger, "end", full)
        reaped = await reap(place.ledger, load=place.load)
    assert [one.error for one in reaped] == ["no space is left"] * 2
    assert [await orphan.state() for orphan in orphans] == [State.EXITED] * 2
    assert [one.error for one in await reap(place.ledger, load=place.load)] == [None] * 2
    assert place.ledger.live() == []


async def test_a_full_disk_ends_no_guard(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sweeps again, and ends as ever when nothing is left."""
    await place.sandbox("orphan", DEAD)
    monkeypatch.setattr(guard, "_TICK_SECONDS", 0.01)
    monkeypatch.setattr(guard, "_QUIET_SECONDS", 0.2)
    plain, refused = Ledger.claims, []

    def claims(ledger: Ledger) -> list[Claim]:
        if len(refused) < 3:
            refused.append(OSError(28, "no space") if refused else ResourceExhaustedError("full"))
            raise refused[-1]
        return plain(ledger)

    monkeypatch.setattr(Ledger, "claims", claims)
    await guard.watch(place.ledger.path.parent)
    assert len(refused) == 3
    assert place.ledger.get("orphan").reason == "client_lost"


async def test_a_guard_asks_the_backends_now_and_then(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each sweep: asking costs the daemon something."""
    monkeypatch.setattr(guard, "_TICK_SECONDS", 0.0)
    monkeypatch.setattr(guard, "_PROBE_SECONDS", 3.0)
    clock = SimpleNamespace(monotonic=itertools.count(step=0.5).__next__)
    monkeypatch.setattr(guard, "time", clock)
    probes = []

    async def reap(ledger: Ledger, *, probe: bool) -> None:
        probes.append(probe)

    monkeypatch.setattr("ringfence.ledger.reaper.reap", reap)
    await guard.watch(place.ledger.path.parent)
    first = probes.index(True)
    assert probes.count(True) > 1
    assert not any(probes[first + 1 : first + 3])


async def test_one_that_is_being_made_is_left_alone_while_its_client_lives(place: Place) -> None:
    instance = await place.sandbox("made", Owner.me())
    await instance.delete()
    place.ledger.end("made", "test")
    place.ledger.add(replace(instance.record, id="making", native=""), owner=Owner.me())
    assert await reap(place.ledger, load=place.load) == []
    assert [entry.record.id for entry in place.ledger.live()] == ["making"]


async def test_one_whose_client_died_before_it_knew_the_name_is_found_by_its_id(
    place: Place,
) -> None:
    spec = SandboxSpec()
    instance = await place.backend.create(spec, "half", await place.backend.facts(spec))
    place.ledger.add(replace(instance.record, native=""), owner=DEAD)
    await reap(place.ledger, load=place.load)
    assert await instance.state() is State.EXITED


async def test_a_backend_that_is_away_keeps_the_entry_for_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.sandbox("later", DEAD)

    async def away(record: object) -> Instance:
        raise BackendUnavailableError("no daemon")

    monkeypatch.setattr(place.backend, "attach", away)
    [reaped] = await reap(place.ledger, load=place.load)
    assert reaped.error == "no daemon"
    assert len(place.ledger.live()) == 1


async def test_a_backend_that_keeps_something_for_clients_removes_that_of_ended_ones(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is away then keeps nobody from the rest."""
    swept = []

    async def sweep() -> None:
        swept.append(1)
        raise BackendUnavailableError("no daemon")

    monkeypatch.setattr(place.backend, "sweep", sweep, raising=False)
    await place.sandbox("orphan", DEAD)
    assert [one.error for one in await reap(place.ledger, load=place.load)] == [None]
    assert swept == [1]


def test_the_guard_reaps_for_a_client_that_was_killed_and_then_ends(tmp_path: Path) -> None:
    """SIGKILL to the client, and nobody runs Ringfence again: the entry is closed all the same."""
    program = f"""
import os, signal, time
from pathlib import Path
from ringfence.backends.base import Record
from ringfence.ledger import Ledger, Owner
from ringfence.ledger.guard import ensure
from ringfence.spec import SandboxSpec
directory = Path({str(tmp_path)!r})
ledger = Ledger(directory / "ledger.sqlite")
ledger.add(Record("rf-x", "mock", "", "n", "socket", SandboxSpec(), time.time()), owner=Owner.me())
ensure(directory)
time.sleep(0.5)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert wait_for(lambda: not ledger.live())
    assert ledger.get("rf-x").reason == "client_lost"
    (tmp_path / "ledger.sqlite").unlink()
    assert wait_for(lambda: not _guards(tmp_path))


def test_a_second_guard_is_not_started(tmp_path: Path) -> None:
    """Nor while the first has yet to read its program: the lock is taken before it is started."""
    Ledger(tmp_path / "ledger.sqlite")
    for _ in range(20):
        ensure(tmp_path)
        assert guarded(tmp_path)
    deadline = time.monotonic() + 60
    while not _guards(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)  # its arguments appear a moment after its program was taken
    [pid] = _guards(tmp_path)
    (tmp_path / "ledger.sqlite").unlink()
    assert wait_for(lambda: not Path(f"/proc/{pid}").exists())  # nor is it a zombie of ours
    assert (tmp_path / LOCK).exists()


def test_a_client_ends_though_its_guard_goes_on(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from ringfence.ledger import Ledger
from ringfence.ledger.guard import ensure
Ledger(Path({str(tmp_path)!r}) / "ledger.sqlite")
ensure(Path({str(tmp_path)!r}))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert guarded(tmp_path)
    (tmp_path / "ledger.sqlite").unlink()
    assert wait_for(lambda: not guarded(tmp_path))


def test_a_guard_has_no_file_of_its_client_and_none_of_its_signals(tmp_path: Path) -> None:
    """A lock of a shell would be held on, and a guard could not be told to end."""
    Ledger(tmp_path / "ledger.sqlite")
    held = os.open(tmp_path / "held", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(held, True)
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        ensure(tmp_path)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGHUP, ignored)
        os.close(held)
    assert wait_for(lambda: _guards(tmp_path))
    [pid] = _guards(tmp_path)
    assert wait_for(lambda: tmp_path / "held" not in _open_files(pid))
    assert tmp_path / LOCK in _open_files(pid)
    status = Path(f"/proc/{pid}/status").read_text()
    masks = dict(re.findall(r"^(Sig\w+):\t(\w+)$", status, re.MULTILINE))
    assert int(masks["SigBlk"], 16) == 0
    assert not int(masks["SigIgn"], 16) & 1 << signal.SIGHUP - 1
    os.kill(pid, signal.SIGTERM)
    assert wait_for(lambda: not _guards(tmp_path))


def _open_files(pid: int) -> list[Path]:
    return [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir() if os.path.lexists(link)]


def test_a_guard_without_a_directory_is_an_error(tmp_path: Path) -> None:
    """Nobody would reap, and nobody would know."""
    with pytest.raises(FileNotFoundError):
        ensure(tmp_path / "gone")


@pytest.mark.parametrize("call", ["open", "posix_spawn"])
def test_a_guard_that_cannot_be_started_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """No descriptor or no process left: the next client can start it."""

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE if call == "open" else errno.EAGAIN, "no more of them")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(ResourceExhaustedError, match="no more of them"):
            ensure(tmp_path)
    assert not guarded(tmp_path)


def test_a_guard_that_is_about_to_end_sees_who_came_at_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    watched = []

    async def watch(directory: Path) -> None:
        if not watched:
            record = Record("rf-x", "mock", "", "n", "socket", SandboxSpec(), time.time())
            ledger.add(record, owner=None)
            ensure(tmp_path)  # starts none: this one holds the lock still
        else:
            ledger.end("rf-x", "test")
        watched.append(directory)

    monkeypatch.setattr(guard, "watch", watch)
    monkeypatch.setattr(guard.os, "chdir", lambda directory: None)
    monkeypatch.setattr(sys, "argv", ["guard", str(tmp_path)])
    guard.main()
    assert watched == [tmp_path, tmp_path]
    assert not guarded(tmp_path)


async def test_a_sweep_reads_whole_entries_only_when_one_is_due(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.sandbox("kept", Owner.me())
    read = place.ledger.live
    monkeypatch.setattr(place.ledger, "live", lambda: pytest.fail("nothing is due"))
    assert await reap(place.ledger, load=place.load, probe=False) == []
    monkeypatch.setattr(place.ledger, "live", read)
    await place.sandbox("orphan", DEAD)
    [reaped] = await reap(place.ledger, load=place.load, probe=False)
    assert reaped.id == "orphan"


def _guards(directory: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if b"ringfence.ledger.guard" in arguments and str(directory).encode() in arguments:
                found += [int(entry.name)] if state != "Z" else []
    return found
