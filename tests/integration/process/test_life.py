"""Sandboxes end when they should, are found again when they should not, and leave nothing."""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.backends.base import Bind, Record
from ringfence.backends.process import ProcessBackend, memory
from ringfence.backends.process.home import Home, homes
from ringfence.backends.process.keeper import Keeper
from ringfence.backends.process.known import known
from ringfence.errors import (
    BackendUnavailableError,
    NotFoundError,
    ResourceExhaustedError,
    SandboxLostError,
    StateError,
)
from ringfence.guest.session import Session
from ringfence.ledger import Ledger, Owner, reap
from ringfence.sandbox.greeting import greet
from tests.integration.process.conftest import (
    Opened,
    cgroups,
    grant,
    new_id,
    opened,
    processes,
)

WAIT_SECONDS = 60.0


async def until(fact: Callable[[], bool]) -> None:
    """Wait for a fact; it fails the test when it does not come true in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + WAIT_SECONDS
    while not fact():
        assert loop.time() < end, "it did not come true"
        await asyncio.sleep(0.05)


def gone(state_directory: Path, sandbox_id: str) -> bool:
    home = state_directory / "process/sandboxes" / sandbox_id
    return not home.exists() and not cgroups(sandbox_id) and not processes(sandbox_id)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def mounts(state_directory: Path) -> list[str]:
    """Mounts of this machine that have to do with sandboxes of this test."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(state_directory) in line]


@contextlib.asynccontextmanager
async def client(*args: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[str]]]:
    """A client in a process of its own, and the ids of its sandboxes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.process.client",
        *args,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    try:
        ids: list[str] = []
        async with asyncio.timeout(WAIT_SECONDS):
            while (line := (await process.stdout.readline()).decode().strip()) != "ready":
                assert line, "the client ended"
                ids.append(line)
        yield process, ids
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_delete_leaves_nothing_and_can_be_repeated(
    opens: Opened, backend: ProcessBackend, state_directory: Path
) -> None:
    async with opens() as sandbox:
        sandbox_id = sandbox.record.id
        assert [found.id for found in await backend.found({})] == [sandbox_id]
        await sandbox.sh("setsid sleep 1000 > /dev/null 2>&1 & exit 0")
        assert not gone(state_directory, sandbox_id)
        await sandbox.instance.delete()
        assert gone(state_directory, sandbox_id)
        assert await sandbox.instance.state() == "exited"
        assert await backend.found({}) == []
        await sandbox.instance.delete()
        with pytest.raises(SandboxLostError):
            await sandbox.instance.connect(asyncio.Protocol)
        with pytest.raises(NotFoundError):
            await backend.attach(sandbox.record)
    assert mounts(state_directory) == []


async def test_a_killed_client_takes_its_attached_sandboxes_along_frozen_ones_too(
    backend: ProcessBackend, state_directory: Path
) -> None:
    async with client("2") as (process, ids):
        cgroup = backend._ground().cgroup(ids[1])
        assert cgroup is not None
        cgroup.freeze()
        await until(cgroup.frozen)
        process.kill()
        await process.wait()
        await until(lambda: all(gone(state_directory, one) for one in ids))
    assert await backend.found({}) == []


async def test_a_detached_sandbox_outlives_its_client_and_is_found_again(
    backend: ProcessBackend, state_directory: Path
) -> None:
    async with client("1", "detached") as (process, ids):
        process.kill()
        await process.wait()
    spec, _ = await grant(backend, detached=True, lifetime=60.0)
    [found] = await backend.found({})
    assert (found.id, found.state) == (ids[0], "running")
    record = Record(ids[0], "process", "", ids[0], "socket", spec, 0.0)
    for epoch in (2, 3):
        instance = await backend.attach(record)
        session = await Session.start(instance.connect, detached=True)
        assert session.hello.epoch == epoch
        await session.close()
    await instance.delete()
    await until(lambda: gone(state_directory, ids[0]))


async def test_a_sandbox_ends_with_its_lifetime_whoever_is_there(
    backend: ProcessBackend, state_directory: Path
) -> None:
    async with opened(backend, detached=True, lifetime=3.0) as sandbox:
        await until(lambda: gone(state_directory, sandbox.record.id))
        assert await sandbox.instance.state() == "exited"


@pytest.mark.usefixtures("reaping_kernel")
async def test_what_ends_by_itself_is_cleared_away_though_its_client_ignores_the_end_of_children(
    backend: ProcessBackend, state_directory: Path
) -> None:
    """Its keeper does not inherit that."""
    async with opened(backend, detached=True, lifetime=60.0) as sandbox:
        os.kill(sandbox.instance.pid, signal.SIGKILL)
        await until(lambda: gone(state_directory, sandbox.record.id))


async def test_the_end_of_the_session_ends_an_attached_sandbox(
    backend: ProcessBackend, opens: Opened, state_directory: Path
) -> None:
    async with opens() as sandbox:
        await sandbox.session.close()
        await until(lambda: gone(state_directory, sandbox.record.id))


def sweep_now(state_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the next look at the machine sweep, and what is asked next look."""
    monkeypatch.setattr("ringfence.backends.process.home._YOUNG_SECONDS", -1.0)
    monkeypatch.setattr("ringfence.backends.process.known._SECONDS", -1.0)
    os.utime(state_directory / "process/swept", (0, 0))


async def test_what_a_killed_keeper_leaves_is_swept(
    backend: ProcessBackend, state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(backend, detached=True, lifetime=60.0) as sandbox:
        home = Home(state_directory / "process/sandboxes" / sandbox.record.id)
        keeper = home.keeper()
        assert keeper is not None
        (await sandbox.instance.exec_cgroup()).close()
        os.kill(keeper, signal.SIGKILL)
        await until(lambda: home.keeper() is None)
        while await sandbox.instance.state() != "exited":  # its lock goes a moment before it does
            await asyncio.sleep(0.01)
        assert cgroups(sandbox.record.id) != []
        sweep_now(state_directory, monkeypatch)
        place = memory.target(state_directory / "process/sandboxes")
        assert await ProcessBackend().found({}) == []
        await until(lambda: gone(state_directory, sandbox.record.id))
        await until(lambda: place is None or not os.path.lexists(place))


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


BUBBLEWRAPPED = {"security": {"tmpfs": {"/data": 4096}}}
"""What makes a sandbox begin with a bubblewrap of its own."""


@pytest.mark.parametrize(
    "wanted",
    [{}, {"detached": True, "lifetime": 60.0}, BUBBLEWRAPPED],
    ids=["attached", "detached", "bubblewrapped"],
)
async def test_nothing_runs_on_inside_when_all_that_looks_after_it_was_killed(
    backend: ProcessBackend,
    state_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: dict[str, Any],
) -> None:
    """The guest sees that its keeper is gone, whoever else is killed with it."""
    async with opened(backend, **wanted) as sandbox:
        home = Home(state_directory / "process/sandboxes" / sandbox.record.id)
        mark = f"1{os.getpid()}{len(wanted)}"
        running = asyncio.ensure_future(sandbox.run("sleep", mark))
        await until(lambda: bool(processes(mark)))
        keeper, guest = home.keeper(), sandbox.instance.pid
        assert keeper is not None
        between = parent(guest)
        assert keeper in (between, parent(between))
        assert (keeper != between) == (wanted is BUBBLEWRAPPED)
        os.kill(keeper, signal.SIGKILL)
        if keeper != between:
            os.kill(between, signal.SIGKILL)
        await until(lambda: not Path(f"/proc/{guest}").exists() and not processes(mark))
        await asyncio.gather(running, return_exceptions=True)
        assert isinstance(await sandbox.session.lost, SandboxLostError)
        sweep_now(state_directory, monkeypatch)
        assert await ProcessBackend().found({}) == []
        await until(lambda: gone(state_directory, sandbox.record.id))


async def test_what_a_client_left_that_died_before_there_was_a_keeper_is_reaped(
    backend: ProcessBackend, state_directory: Path
) -> None:
    """By its record, which knows no more than the id; at once, though it is young."""
    spec, facts = await grant(backend, detached=True, lifetime=60.0)
    instance = await backend.create(spec, new_id(), facts)
    record = instance.record
    await instance.delete()
    memory.ready(state_directory / "process/sandboxes")
    home = Home(state_directory / "process/sandboxes" / record.id)
    home.make({"labels": {}, "image": None, "created": 1.0}, "/nowhere/guest")
    await reaped(left(state_directory, record))
    assert not home.path.exists()


SLOW = """#!/bin/sh
while [ "$1" != --version ] && [ ! -e {go} ]; do sleep 0.01; done
exec {bwrap} "$@"
"""


async def reaped(ledger: Ledger) -> None:
    [one] = await reap(ledger)
    assert (one.reason, one.error) == ("client_lost", None)


async def deleted(ledger: Ledger) -> None:
    [entry] = ledger.live()
    await ringfence.delete_sandbox(entry.record.id, ledger=ledger)


@pytest.mark.parametrize("end", [reaped, deleted])
async def test_what_a_client_left_that_died_before_its_guest_was_up_ends_with_its_record(
    backend: ProcessBackend,
    state_directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[Ledger], Awaitable[None]],
) -> None:
    """The greeting waits for the guest, which would live on by it, and no record would tell."""
    slow, go = tmp_path / "bwrap", tmp_path / "go"
    slow.write_text(SLOW.format(go=go, bwrap=shutil.which("bwrap")))
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    spec, facts = await grant(backend, detached=True, lifetime=60.0, **BUBBLEWRAPPED)
    instance = await backend.create(spec, new_id(), facts)
    greeting = asyncio.ensure_future(greet(instance, spec))
    home = Home(state_directory / "process/sandboxes" / instance.record.id)
    await until(lambda: home.keeper() is not None)
    try:
        await end(left(state_directory, instance.record))
        assert gone(state_directory, instance.record.id)
    finally:
        go.touch()
        with pytest.raises(BackendUnavailableError):
            await greeting
        await instance.delete()


@pytest.mark.parametrize("end", [reaped, deleted])
async def test_what_a_client_left_that_died_before_it_was_on_record_as_made_ends_with_its_record(
    backend: ProcessBackend, state_directory: Path, end: Callable[[Ledger], Awaitable[None]]
) -> None:
    async with opened(backend, detached=True, lifetime=60.0) as sandbox:
        await end(left(state_directory, sandbox.record))
        assert gone(state_directory, sandbox.record.id)


def left(state_directory: Path, record: Record) -> Ledger:
    """A ledger that has what was about to be made by a client that ended."""
    ledger = Ledger(state_directory / "ledger.sqlite")
    ledger.add(replace(record, native=""), owner=Owner(2**22 + 1, 1, Owner.me().boot))
    return ledger


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The guests' ends of all streams, as who is forked by another thread at the wrong moment has
    them."""
    spawn, ends = Keeper.spawn.__func__, list[int]()  # type: ignore[attr-defined]

    def spawned(
        kind: type[Keeper], /, *args: Any, passed: Mapping[int, int], **more: Any
    ) -> Keeper:
        ends.extend(map(os.dup, passed.values()))
        keeper: Keeper = spawn(kind, *args, passed=passed, **more)
        return keeper

    monkeypatch.setattr(Keeper, "spawn", classmethod(spawned))
    yield ends
    for end in ends:
        os.close(end)


async def test_a_failed_start_is_told_whoever_else_has_the_guests_end_of_the_stream(
    backend: ProcessBackend, held: list[int]
) -> None:
    spec, facts = await grant(backend)
    absent = Bind("/nowhere/at/all", "/workspace")
    instance = await backend.create(spec, new_id(), facts, binds=(absent,))
    assert held
    with pytest.raises(BackendUnavailableError, match="/nowhere/at/all"):
        await greet(instance, spec)
    await instance.delete()


async def test_an_end_that_was_told_already_is_told_at_once(backend: ProcessBackend) -> None:
    """As a keeper's that failed while its stream was being joined."""
    spec, facts = await grant(backend)
    absent = Bind("/nowhere/at/all", "/workspace")
    instance = await backend.create(spec, new_id(), facts, binds=(absent,))
    first: list[bool] = []
    instance._keeper.at_end(lambda: first.append(True))
    await until(lambda: first)
    told: list[bool] = []
    instance._keeper.at_end(lambda: told.append(True))
    assert told == [True]
    await instance.delete()


async def test_an_end_is_told_whoever_else_has_the_guests_end_of_the_stream(
    backend: ProcessBackend, held: list[int]
) -> None:
    async with opened(backend) as sandbox:
        assert held
        os.kill(sandbox.instance.pid, signal.SIGKILL)
        assert "its stream ended" in (await sandbox.session.lost).message


async def test_a_start_that_nobody_goes_on_with_gives_its_turn_back_when_it_ends(
    backend: ProcessBackend, state_directory: Path
) -> None:
    spec, facts = await grant(backend)
    turns = known().starts
    before = turns._value
    instance = await backend.create(spec, new_id(), facts)
    assert turns._value == before - 1
    home = Home(state_directory / "process/sandboxes" / instance.record.id)
    await until(lambda: home.keeper() is not None)
    os.kill(home.keeper() or 0, signal.SIGTERM)
    await until(lambda: turns._value == before)
    await instance.delete()
    assert turns._value == before


@pytest.mark.parametrize("numbers", [("0",), ("0", "2"), ("2",)], ids=" ".join)
async def test_a_client_may_have_closed_its_standard_descriptors(
    backend: ProcessBackend, numbers: tuple[str, ...]
) -> None:
    """What is opened next gets their numbers, which are the keeper's own after its start."""
    async with client("closed", *numbers) as (process, _):
        assert await process.wait() == 0


async def test_only_the_guest_is_let_in(backend: ProcessBackend, state_directory: Path) -> None:
    async with opened(backend, detached=True, lifetime=60.0) as sandbox:
        await sandbox.session.close()
        await sandbox.instance.pause()
        run = state_directory / "process/sandboxes" / sandbox.record.id / "run"
        connecting = asyncio.ensure_future(Session.start(sandbox.instance.connect, detached=True))
        await until((run / "host.sock").exists)
        directory = os.open(run, os.O_RDONLY)
        try:
            stranger = f"/proc/self/fd/{directory}/host.sock"
            reader, writer = await asyncio.open_unix_connection(stranger)
        finally:
            os.close(directory)
        assert await reader.read() == b""
        writer.close()
        assert not connecting.done()
        await sandbox.instance.resume()
        session = await connecting
        assert (await session.ping()) >= 0
        await session.close()


async def test_one_session_is_opened_at_a_time(backend: ProcessBackend) -> None:
    async with opened(backend, detached=True, lifetime=60.0) as sandbox:
        await sandbox.session.close()
        await sandbox.instance.pause()
        first = asyncio.ensure_future(Session.start(sandbox.instance.connect, detached=True))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(StateError, match="one at a time"):
            await Session.start(sandbox.instance.connect, detached=True)
        await sandbox.instance.resume()
        await (await first).close()


async def test_a_cancelled_start_leaves_nothing(
    backend: ProcessBackend, state_directory: Path
) -> None:
    spec, facts = await grant(backend)
    ids = [new_id() for _ in range(8)]
    for step, sandbox_id in enumerate(ids):
        task = asyncio.ensure_future(backend.create(spec, sandbox_id, facts))
        await asyncio.sleep(0.001 * step)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await task).delete()
        assert gone(state_directory, sandbox_id)


async def test_a_client_killed_at_any_point_leaves_nothing(
    backend: ProcessBackend, state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one(delay: float) -> None:
        async with client("loop") as (process, _):
            await asyncio.sleep(delay)
            process.kill()

    await asyncio.gather(*(one(0.05 + 0.0037 * step) for step in range(6)))
    sandboxes = state_directory / "process/sandboxes"
    await until(lambda: not processes(str(sandboxes)))
    sweep_now(state_directory, monkeypatch)
    assert await ProcessBackend().found({}) == []
    assert list(homes(sandboxes)) == []
    assert mounts(state_directory) == []


def inside(directory: str) -> list[str]:
    """The sandboxes in a directory."""
    try:
        return [path.name for path in Path(directory).iterdir() if path.is_dir()]
    except FileNotFoundError:  # the last keeper took it along
        return []


async def test_the_last_sandbox_takes_the_place_of_all_along(
    opens: Opened, state_directory: Path
) -> None:
    """In memory nothing stays of a state directory that nobody uses any more."""
    async with opens() as first:
        target = memory.target(state_directory / "process/sandboxes")
        if target is None:
            pytest.skip("there is no tmpfs of root's here")
        async with opens():
            assert len(inside(target)) == 2
        assert inside(target) == [first.record.id]
    assert inside(target) == []
    assert memory.target(state_directory / "process/sandboxes") == target
    await until(lambda: not os.path.lexists(target))
    async with opens() as again:
        assert inside(target) == [again.record.id]


async def test_a_keeper_that_ended_by_itself_is_reaped_though_nobody_asked(
    backend: ProcessBackend, state_directory: Path
) -> None:
    spec, facts = await grant(backend, detached=True, lifetime=60.0)
    instance = await backend.create(spec, new_id(), facts)
    home = Home(state_directory / "process/sandboxes" / instance.record.id)
    await until(lambda: home.keeper() is not None)
    keeper = home.keeper()
    descriptors = open_files()
    instance._keeper.close()
    await until(lambda: home.guest() is not None)
    os.kill(instance.pid, signal.SIGKILL)
    await until(lambda: not Path(f"/proc/{keeper}").exists())
    assert open_files() < descriptors


def limit_with_room(room: int) -> int:
    """The limit below which exactly `room` numbers are free: open ones may lie far apart."""
    taken = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    limit = free = 0
    while free < room:
        free += limit not in taken
        limit += 1
    return limit


@pytest.mark.parametrize("look", [-1.0, 60.0], ids=["looks", "knows"])
async def test_a_start_without_descriptors_is_refused_and_leaves_nothing(
    backend: ProcessBackend, state_directory: Path, monkeypatch: pytest.MonkeyPatch, look: float
) -> None:
    """Whether it looks at the machine anew, or knows it."""
    spec, facts = await grant(backend)
    first = await backend.create(spec, new_id(), facts)
    await first.delete()
    monkeypatch.setattr("ringfence.backends.process.known._SECONDS", look)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before, refused = open_files(), 0
    for room in range(8):
        sandbox_id = new_id()
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit_with_room(room), hard))
        try:
            await (await backend.create(spec, sandbox_id, facts)).delete()
        except ResourceExhaustedError as error:
            refused += 1
            assert "ulimit -n" in str(error)  # noqa: PT017 - most rounds raise nothing
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await until(partial(gone, state_directory, sandbox_id))
        assert open_files() <= before
    assert refused > 0
    again = await backend.create(spec, new_id(), facts)
    await again.delete()


async def test_a_state_directory_that_is_removed_is_told_and_made_again(
    backend: ProcessBackend, state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it was looked at just before: who tries again at once has it."""
    monkeypatch.setattr("ringfence.backends.process.known._SECONDS", 60.0)
    spec, facts = await grant(backend)
    await (await backend.create(spec, new_id(), facts)).delete()
    shutil.rmtree(state_directory / "process")
    with pytest.raises(ResourceExhaustedError, match="was removed while it was in use"):
        await backend.create(spec, new_id(), facts)
    await (await backend.create(spec, new_id(), facts)).delete()


async def test_a_hundred_at_once_work_and_leave_nothing(
    backend: ProcessBackend, state_directory: Path
) -> None:
    spec, facts = await grant(backend)
    ids = [new_id() for _ in range(100)]
    descriptors = open_files()

    async def one(sandbox_id: str) -> bytes:
        instance = await backend.create(spec, sandbox_id, facts)
        session = await Session.start(instance.connect, lease=60.0, deadline=60.0)
        try:
            user = await session.user("1000")
            return user.name.encode()
        finally:
            await instance.delete()
            await session.close()

    assert await asyncio.gather(*map(one, ids)) == [b"user"] * 100
    assert all(gone(state_directory, sandbox_id) for sandbox_id in ids)
    assert open_files() <= descriptors + 5
