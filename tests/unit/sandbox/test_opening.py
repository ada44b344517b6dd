"""Whatever fails while a sandbox is opened, nothing is left of it."""

import asyncio
import errno
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import ringfence
from ringfence import workspace
from ringfence.backends.base import Features, Record
from ringfence.backends.mock import MockBackend
from ringfence.errors import (
    BackendUnavailableError,
    DeadlineExceededError,
    ResourceExhaustedError,
    SandboxLostError,
    UnsupportedError,
)
from ringfence.events import CreateFailed, Event, EventBus
from ringfence.guest.session import Session
from ringfence.ledger import Busy, Ledger, Owner, guard, store
from ringfence.ledger.connection import Kept
from ringfence.ledger.reaper import reap
from ringfence.ledger.reasons import CREATE_FAILED, DELETED
from ringfence.sandbox import binds, granting, greeting, needs, opening
from ringfence.sandbox.records import Records
from ringfence.spec import SandboxSpec
from ringfence.workspace import shared

from .conftest import Durable

RECORD = Record("rf-one", "mock", "", "", "", SandboxSpec(), 1.0, None)
STEPS: dict[str, tuple[Any, str]] = {
    "features": (MockBackend, "features"),
    "needs": (opening.needs, "check"),
    "facts": (MockBackend, "facts"),
    "resolve": (granting, "resolve"),
    "prepare": (opening.binds, "prepare"),
    "records": (Records, "of"),
    "add": (Records, "add"),
    "create": (MockBackend, "create"),
    "created": (Records, "created"),
    "session": (Session, "start"),
    "asked": (Session, "begin_user"),
    "user": (greeting.FirstAsked, "user"),
    "receipt": (opening, "read_receipt"),
    "network": (opening.networking, "connect"),
    "life": (opening, "Life"),
    "sandbox": (opening, "Sandbox"),
}


async def nothing_is_left(mock: MockBackend, ledger: Ledger) -> None:
    """No sandbox on the backend and none that the ledger takes for alive."""
    assert await mock.found({}) == []
    assert ledger.live() == []


@pytest.mark.parametrize("step", STEPS)
async def test_a_fault_at_any_step_leaves_nothing(
    step: str,
    durable: Durable,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error is raised as it is, with the sandbox's id, told as an event, and all is undone."""
    events: list[Event] = []
    bus = EventBus()
    bus.subscribe(events.append)

    def fail(*args: Any, **kw: Any) -> Any:
        raise ResourceExhaustedError(f"no {step}")

    monkeypatch.setattr(*STEPS[step], fail)
    with pytest.raises(ResourceExhaustedError, match=f"no {step}") as caught:
        await ringfence.open(backend=durable, ledger=ledger, events=bus)
    assert caught.value.sandbox_id
    assert [type(event) for event in events] == [CreateFailed]
    monkeypatch.undo()
    await nothing_is_left(durable.mock, ledger)


@pytest.mark.parametrize("step", STEPS)
async def test_what_is_no_error_of_ours_is_undone_too(
    step: str, durable: Durable, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in a step is raised as it is, and all is undone."""

    def fail(*args: Any, **kw: Any) -> Any:
        raise LookupError(step)

    monkeypatch.setattr(*STEPS[step], fail)
    with pytest.raises(LookupError):
        await ringfence.open(backend=durable, ledger=ledger)
    monkeypatch.undo()
    await nothing_is_left(durable.mock, ledger)


async def test_cancellation_anywhere_leaves_nothing(durable: Durable, ledger: Ledger) -> None:
    """Cancelled after any number of the event loop's turns, it raises only that."""
    await _cancelled_anywhere(durable, ledger)


@pytest.mark.parametrize("later", [1, 2, 3])
async def test_a_second_cancellation_leaves_nothing_either(
    later: int, mock: MockBackend, ledger: Ledger
) -> None:
    """Whatever the first one has begun goes on. later: so many turns of the event loop."""
    await _cancelled_anywhere(Tied(mock), ledger, later)


async def _cancelled_anywhere(durable: Durable, ledger: Ledger, later: int = 0) -> None:
    finished = 0
    for turns in range(200):
        task = asyncio.ensure_future(_opened(durable, ledger))
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            finished += 1
            await (await task).delete()
        elif task.cancel():
            for _ in range(later):
                await asyncio.sleep(0)
            if later:
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await nothing_is_left(durable.mock, ledger)
        if finished > 2:
            break


async def test_the_record_of_a_failure_is_closed_last(
    durable: Durable, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made is undone before, so that nothing is left that no record tells of."""
    seen = []

    async def look() -> None:
        seen.append([entry.ended for entry in ledger.all()])

    async def prepare(*args: Any, **kw: Any) -> binds.Prepared:
        return binds.Prepared(aclose=look)

    monkeypatch.setattr(opening.binds, "prepare", prepare)
    monkeypatch.setattr(*STEPS["network"], partial(_fail, "network"))
    with pytest.raises(ResourceExhaustedError):
        await ringfence.open(backend=durable, ledger=ledger)
    assert seen == [[None]]
    assert [entry.reason for entry in ledger.all()] == [CREATE_FAILED]


class Tied(Durable):
    """One whose sandboxes end with their client, so that the record is written once they are."""

    async def features(self) -> Features:
        return replace(await self.mock.features(), lifeline=True)


@pytest.mark.parametrize("step", [step for step in STEPS if step != "created"])
async def test_a_fault_where_the_record_is_written_late_leaves_nothing(
    step: str, mock: MockBackend, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record's own fault is told once the sandbox is made, which then ends."""

    monkeypatch.setattr(*STEPS[step], staticmethod(partial(_fail, step)))
    with pytest.raises(ResourceExhaustedError, match=f"no {step}"):
        await ringfence.open(backend=Tied(mock), ledger=ledger)
    monkeypatch.undo()
    await nothing_is_left(mock, ledger)
    assert {entry.reason for entry in ledger.all()} <= {CREATE_FAILED}


async def test_one_that_was_not_made_is_on_record_as_that(
    mock: MockBackend, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the record is written late, and whether it was when the fault came or not."""
    for step in ("create", "network"):
        with monkeypatch.context() as patch:
            patch.setattr(*STEPS[step], staticmethod(partial(_fail, step)))
            with pytest.raises(ResourceExhaustedError):
                await ringfence.open(backend=Tied(mock), ledger=ledger)
    assert [entry.reason for entry in ledger.all()] == [CREATE_FAILED] * 2


def _fail(step: str, *args: Any, **kw: Any) -> Any:
    raise ResourceExhaustedError(f"no {step}")


async def test_one_that_ends_with_its_client_is_written_down_in_one_step(
    mock: MockBackend, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Records, "created")
    async with ringfence.open(backend=Tied(mock), ledger=ledger) as sandbox:
        entry = ledger.get(sandbox.id)
        assert entry.live
        assert entry.record.native == sandbox._context.instance.record.native != ""


async def test_a_record_that_cannot_be_written_meanwhile_ends_the_sandbox(
    mock: MockBackend, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    create = MockBackend.create

    async def creating(*args: Any, **kw: Any) -> Any:
        made.append(await create(*args, **kw))
        return made[-1]

    async def full(*args: Any, **kw: Any) -> None:
        while not made:
            await asyncio.sleep(0)
        raise ResourceExhaustedError("the disk is full")

    monkeypatch.setattr(MockBackend, "create", creating)
    monkeypatch.setattr(Records, "add", full)
    with pytest.raises(ResourceExhaustedError, match="the disk is full"):
        await ringfence.open(backend=Tied(mock), ledger=ledger)
    assert len(made) == 1
    await nothing_is_left(mock, ledger)


@pytest.mark.parametrize("tls", [True, False])
def test_a_secret_is_refused_to_a_detached_one(tls: bool) -> None:
    """Whoever opens it by its id would add what the record says of the value: that it is masked."""
    secret = {"host": "api.example", "value": "Bearer hidden", "tls": tls}
    network = {"mode": "proxy", "allow": ["api.example"], "secrets": [secret]}
    spec = SandboxSpec.parse({"detached": True, "lifetime": 60, "network": network})
    features = Features(detached=True, networks=frozenset({"none", "proxy"}))
    with pytest.raises(UnsupportedError, match=r"network\.secrets"):
        needs.check(spec, features)


async def test_a_detached_one_is_on_record_before_it_is_made(
    mock: MockBackend, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else would end it: its client is free to go, but while it makes it."""
    create = MockBackend.create

    async def creating(
        backend: MockBackend, spec: Any, sandbox_id: str, *args: Any, **kw: Any
    ) -> Any:
        assert ledger.get(sandbox_id).live
        assert ledger.get(sandbox_id).owner == Owner.me()
        return await create(backend, spec, sandbox_id, *args, **kw)

    monkeypatch.setattr(MockBackend, "create", creating)
    sandbox = await ringfence.open(backend=Tied(mock), ledger=ledger, detached=True, lifetime=60)
    assert ledger.get(sandbox.id).owner is None
    await sandbox.delete()


async def test_cancellation_while_the_record_is_written_meanwhile_leaves_nothing(
    mock: MockBackend, ledger: Ledger
) -> None:
    await _cancelled_anywhere(Tied(mock), ledger)


async def _opened(durable: Durable, ledger: Ledger) -> ringfence.Sandbox:
    return await ringfence.open(backend=durable, ledger=ledger)


@pytest.mark.parametrize("op", ["hello", "user"])
async def test_a_guest_that_dies_while_it_is_greeted(
    op: str, durable: Durable, ledger: Ledger
) -> None:
    """It is SandboxLostError, and nothing is left."""
    durable.mock.lose(op)
    with pytest.raises(SandboxLostError):
        await ringfence.open(backend=durable, ledger=ledger)
    await nothing_is_left(durable.mock, ledger)


@pytest.mark.parametrize("kind", [Durable, Tied])
async def test_a_failing_undo_does_not_hide_the_error(
    kind: type[Durable], mock: MockBackend, ledger: Ledger
) -> None:
    """The first error is the one that is raised and told. What is left is on record as that, so
    that whoever reaps goes on with it while this client lives on."""
    events: list[Event] = []
    bus = EventBus()
    bus.subscribe(events.append)
    mock.fail("connect", error=BackendUnavailableError("first"))
    mock.fail("delete", error=BackendUnavailableError("second"))
    with pytest.raises(BackendUnavailableError, match="first") as caught:
        await ringfence.open(backend=kind(mock), ledger=ledger, events=bus)
    assert "second" in caught.value.__notes__[0]
    assert [type(event) for event in events] == [CreateFailed]
    assert len(await mock.found({})) == 1
    [done] = await reap(ledger, load=lambda *_: mock, probe=False)
    assert (done.reason, done.error) == (CREATE_FAILED, None)
    await nothing_is_left(mock, ledger)


async def test_no_thread_for_a_step_nor_for_its_undo_is_told_as_exhausted(
    durable: Durable, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a service has all the processes that it may have."""

    async def start(*args: Any, **kw: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Records, "add", start)
    monkeypatch.setattr(Records, "failed", start)
    with pytest.raises(ResourceExhaustedError, match="ulimit -u") as caught:
        await ringfence.open(backend=durable, ledger=ledger)
    assert "new thread" in caught.value.__notes__[0]


async def test_a_step_waits_for_a_ledger_that_another_process_holds_and_the_loop_does_not(
    ledger: Ledger,
) -> None:
    records = Records(ledger)
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        adding = asyncio.ensure_future(records.add(RECORD))
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert not adding.done()
        other.rollback()
    await adding
    assert [entry.record.id for entry in ledger.live()] == ["rf-one"]


async def test_no_thread_is_needed_for_a_ledger_that_nobody_holds(
    ledger: Ledger, no_thread: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This user's own, too, once it was looked at."""
    monkeypatch.setenv("RINGFENCE_STATE_DIR", str(ledger.path.parent))
    monkeypatch.setattr(store, "_key", lambda: (ledger.path.parent, 0, 1))
    Ledger.default().add(replace(RECORD, id="rf-zero"), owner=None)
    no_thread()
    monkeypatch.setattr(Kept, "transaction", None)
    await Records(None, default=True).add(RECORD)
    monkeypatch.undo()
    assert {entry.record.id for entry in ledger.live()} == {"rf-zero", "rf-one"}


async def test_a_guard_is_started_in_another_thread(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes as long as a process does. The ledger is written in the event loop's."""
    here = threading.get_ident()
    started: list[int] = []
    written: list[int] = []
    add = Ledger.add

    def seen(self: Ledger, *arguments: Any, **options: Any) -> None:
        add(self, *arguments, **options)
        written.append(threading.get_ident())

    ledger.add(replace(RECORD, id="rf-zero"), owner=None)
    monkeypatch.setattr(Ledger, "add", seen)
    monkeypatch.setattr(guard, "missing", lambda _: lambda: started.append(threading.get_ident()))
    await Records(ledger).add(RECORD)
    assert written == [here]
    assert len(started) == 1
    assert started != [here]


async def test_a_sandbox_stays_in_the_ledger_in_which_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state directory may be another one before it has ended."""
    for name in ("first", "second"):
        monkeypatch.setenv("RINGFENCE_STATE_DIR", str(tmp_path / name))
        Ledger.default()
    ledgers = [Ledger(tmp_path / name / "ledger.sqlite") for name in ("first", "second")]
    for at_hand in (False, True):
        monkeypatch.setenv("RINGFENCE_STATE_DIR", str(tmp_path / "first"))
        record, records = replace(RECORD, id=f"rf-{at_hand}"), Records(None, default=True)
        if at_hand:
            Ledger.default()
        await records.add(record)
        monkeypatch.setenv("RINGFENCE_STATE_DIR", str(tmp_path / "second"))
        if at_hand:
            Ledger.default()
        await records.created(record)
        await records.end(record.id, DELETED)
    assert [len(each.live()) for each in ledgers] == [0, 0]
    assert [len(each.all()) for each in ledgers] == [2, 0]


@pytest.mark.parametrize("busy", [False, True])
async def test_the_record_is_closed_though_no_thread_can_be_started(
    durable: Durable,
    ledger: Ledger,
    no_thread: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    busy: bool,
) -> None:
    """Of one that was not made, and of one that is deleted: nobody reaps what is on record as of a
    client that lives. busy: somebody else is at the ledger in the first moment."""
    sandbox = await ringfence.open(backend=durable, ledger=ledger)
    no_thread()
    if busy:
        monkeypatch.setattr(Kept, "at_once", Mock(side_effect=Busy))
    report = await sandbox.delete()
    assert report.error is None
    durable.mock.fail("connect", error=BackendUnavailableError("first"))
    with pytest.raises(BackendUnavailableError, match="first"):
        await ringfence.open(backend=durable, ledger=ledger)
    assert [entry.reason for entry in ledger.all()] == [DELETED, CREATE_FAILED]
    await nothing_is_left(durable.mock, ledger)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EMFILE, "Too many open files"), RuntimeError("can't start new thread")],
    ids=["descriptor", "thread"],
)
async def test_no_descriptor_or_thread_for_one_that_exists_is_told_as_exhausted(
    durable: Durable,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: Exception,
) -> None:
    """It may be tried again, and is as it was."""

    async def run_out(*args: Any, **kw: Any) -> None:
        raise error

    log = tmp_path / "log"
    sandbox = await ringfence.open(backend=durable, ledger=ledger, detached=True, lifetime=60)
    await sandbox.detach()
    with monkeypatch.context() as patched:
        patched.setattr(Session, "user", run_out)
        with pytest.raises(ResourceExhaustedError, match="ulimit") as caught:
            await ringfence.open(id=sandbox.id, backend=durable, ledger=ledger, audit=log)
    assert caught.value.sandbox_id == sandbox.id
    async with ringfence.open(id=sandbox.id, backend=durable, ledger=ledger, audit=log) as again:
        assert (await again.exec(["true"])).ok
        await again.delete()


async def test_a_workspace_that_cannot_be_closed_is_on_record_as_that(
    durable: Durable, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as one of a client that lives, whose sandboxes nobody reaps."""

    async def full() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def prepare(*args: Any, **kw: Any) -> binds.Prepared:
        return binds.Prepared(aclose=full)

    monkeypatch.setattr(opening.binds, "prepare", prepare)
    monkeypatch.setattr(*STEPS["network"], partial(_fail, "network"))
    with pytest.raises(ResourceExhaustedError, match="no network"):
        await ringfence.open(backend=durable, ledger=ledger)
    [entry] = ledger.live()
    assert (entry.reason, entry.expired()) == (CREATE_FAILED, True)


async def test_the_ledger_knows_it_while_it_lives(durable: Durable, ledger: Ledger) -> None:
    """It is on record with its owner, and closed with the reason."""
    async with ringfence.open(backend=durable, ledger=ledger, lifetime=100) as sandbox:
        (entry,) = ledger.live()
        assert entry.record.id == sandbox.id
        assert entry.owner is not None
        assert entry.owner.alive()
        ends = await sandbox.extend(200)
        assert ledger.get(sandbox.id).record.ends == ends
    assert ledger.live() == []
    assert ledger.get(sandbox.id).reason == "deleted"


async def test_a_detached_one_is_found_by_the_beginning_of_its_id(
    durable: Durable, ledger: Ledger
) -> None:
    """Its block leaves it on record without an owner; deleting it closes the record."""
    async with ringfence.open(
        backend=durable, ledger=ledger, detached=True, lifetime=60
    ) as sandbox:
        pass
    (entry,) = ledger.live()
    assert entry.owner is None
    async with ringfence.open(id=sandbox.id[:6], backend=durable, ledger=ledger) as again:
        assert again.id == sandbox.id
        await again.delete()
    assert ledger.live() == []


async def test_one_that_another_client_holds_says_so(
    durable: Durable, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its guest has one session at a time, and comes to nobody else meanwhile."""
    async with ringfence.open(
        backend=durable, ledger=ledger, detached=True, lifetime=600
    ) as sandbox:
        pass

    async def nobody(*_: object, **__: object) -> None:
        raise DeadlineExceededError("connect: the guest did not dial within 10 s")

    with monkeypatch.context() as patch:
        patch.setattr(Session, "start", nobody)
        with pytest.raises(DeadlineExceededError, match="another client may hold it"):
            await ringfence.open(id=sandbox.id, backend=durable, ledger=ledger)
    async with ringfence.open(id=sandbox.id, backend=durable, ledger=ledger) as again:
        await again.delete()


async def test_one_that_is_gone_is_closed_in_the_record(durable: Durable, ledger: Ledger) -> None:
    """Opening what the backend does not know any more is NotFoundError, now and later."""
    async with ringfence.open(
        backend=durable, ledger=ledger, detached=True, lifetime=60
    ) as sandbox:
        pass
    await durable.mock._instances[sandbox.id].delete()
    for _ in range(2):
        with pytest.raises(ringfence.NotFoundError):
            await ringfence.open(id=sandbox.id, backend=durable, ledger=ledger)
    assert ledger.live() == []


def test_a_sandbox_that_exists_cannot_be_described_again() -> None:
    """id together with other fields is InvalidSpecError that names them."""
    with pytest.raises(ringfence.InvalidSpecError, match="image"):
        ringfence.open(id="x", image="y")


def test_keywords_change_single_fields_of_a_spec() -> None:
    """What a spec says stays, what a keyword says goes before."""
    spec = ringfence.SandboxSpec(image="a", env={"A": "1"}, profile="standard")
    changed = ringfence.open(spec, image="b", user=5)._spec
    assert changed is not None
    assert (changed.image, changed.env, changed.profile, changed.user) == (
        "b",
        {"A": "1"},
        "standard",
        "5",
    )


async def test_the_images_environment_stands_below_the_specs(mock: MockBackend) -> None:
    """PATH of the image is used, the spec goes before, names that cannot be are left out."""
    facts = await mock.facts(ringfence.SandboxSpec(image="x"))
    assert facts.image is not None
    facts.image.env.update({"PATH": "/image", "A": "image", "BAD-NAME": "x"})  # type: ignore[attr-defined]
    granted = granting.with_variables(ringfence.SandboxSpec(image="x", env={"A": "spec"}), facts)
    assert granted.env["PATH"] == "/image"
    assert granted.env["A"] == "spec"
    assert "BAD-NAME" not in granted.env


@pytest.mark.parametrize("backend", [5, object(), b"docker"])
def test_what_is_no_backend_is_refused_at_once(backend: Any) -> None:
    with pytest.raises(ringfence.InvalidSpecError, match="backend"):
        ringfence.open(backend=backend)


@pytest.mark.parametrize("spec", ["1f2e3d", {"image": "python:3.12-slim"}, 7])
def test_what_is_no_spec_is_refused_at_once(spec: Any) -> None:
    with pytest.raises(ringfence.InvalidSpecError, match="say id= for one that exists"):
        ringfence.open(spec)


async def test_without_asyncio_the_other_interface_is_named() -> None:
    """As under trio, whose tasks no asyncio loop runs."""
    pool = ringfence.pool(ringfence.SandboxSpec(), size=1)

    def elsewhere() -> list[str]:
        said = []
        for way in (ringfence.open().__aenter__(), ringfence.run(["true"]), pool.__aenter__()):
            with pytest.raises(ringfence.StateError) as caught:
                way.send(None)
            said.append(str(caught.value))
        return said

    assert all("ringfence.sync" in one for one in await asyncio.to_thread(elsewhere))


def test_a_full_disk_is_named_by_what_could_not_be_written() -> None:
    """Not by what was copied there."""
    full = opening.named(OSError(errno.ENOSPC, "No space left on device", "/from", None, "/to"))
    assert "(/to)" in str(full)
    assert "/from" not in str(full)


class Mounting(Durable):
    """It says that it takes a repository."""

    async def features(self) -> Features:
        return replace(await self.mock.features(), mounts=True)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "try again later"),
        (errno.EAGAIN, "ulimit -u"),
        (errno.ENOMEM, "memory"),
    ],
)
def test_what_has_run_out_is_named_with_what_can_be_done(number: int, remedy: str) -> None:
    short = opening.named(OSError(number, os.strerror(number)))
    assert isinstance(short, ResourceExhaustedError)
    assert remedy in str(short)


@pytest.mark.parametrize("left", ["the directory", "its mark on a layer"])
async def test_a_workspace_that_cannot_be_removed_stays_on_record(
    left: str,
    mock: MockBackend,
    ledger: Ledger,
    state_directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever reaps goes on with it."""
    repository = tmp_path / "repository"
    repository.mkdir()
    made: list[Path] = []

    def prepare(*_: Any, directory: Path, **__: Any) -> None:
        directory.mkdir(parents=True)
        made.append(directory)
        shared.create(directory)
        raise OSError(errno.EMFILE, "Too many open files")

    def clean(directory: Path) -> None:
        if left != "the directory":
            directory.rmdir()
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(workspace, "prepare", prepare)
    with monkeypatch.context() as full:
        full.setattr(workspace, "clean", clean)
        with pytest.raises(ResourceExhaustedError):
            await ringfence.open(backend=Mounting(mock), ledger=ledger, repository=repository)
    [directory] = made
    [entry] = ledger.all()
    assert entry.live
    assert directory.exists() == (left == "the directory")
    assert shared.uses(directory)
    await reap(ledger, load=lambda *_: MockBackend())
    assert [entry.reason for entry in ledger.all()] == [CREATE_FAILED]
    assert not workspace.is_left(directory)
    assert list(shared.store_of(directory).iterdir()) == []


@pytest.mark.parametrize("image", ["/images/root", "./root.tar", "../layout:name", "~/root"])
async def test_a_path_as_an_image_names_the_backend_for_it(image: str) -> None:
    """Where the choice was left open, and before any daemon is asked."""
    with pytest.raises(ringfence.InvalidSpecError, match="backend='process'"):
        await ringfence.open(image=image)
