"""A sandbox is followed by who does not hold it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import ringfence
from ringfence.backends import registry
from ringfence.backends.mock.backend import MockInstance
from ringfence.errors import BackendUnavailableError
from ringfence.events import Event
from ringfence.ledger import Ledger
from ringfence.sandbox import members
from ringfence.sandbox.outside import follow
from ringfence.spec import SandboxInfo, State, Usage

from .conftest import Durable

INTERVAL = 0.001


class Looks:
    """What each look finds, the last one for ever. seen: how many there were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *found: tuple[Any, Usage]) -> None:
        self.found = list(found)
        self.seen = 0
        monkeypatch.setattr(MockInstance, "state", lambda _: self._state())
        monkeypatch.setattr(MockInstance, "usage", lambda _: self._usage())

    async def _state(self) -> State:
        self.seen += 1
        self.now = self.found.pop(0) if self.found[1:] else self.found[0]
        if isinstance(self.now[0], Exception):
            raise self.now[0]
        return State(self.now[0])

    async def _usage(self) -> Usage:
        return self.now[1]  # type: ignore[no-any-return]


def used(oom_kills: int | None = 0, forks_refused: int | None = 0) -> Usage:
    return Usage(source="test", oom_kills=oom_kills, forks_refused=forks_refused)


def short(events: list[Event]) -> list[tuple[Any, ...]]:
    """Names, and what else is said but the time."""
    told = []
    for event in events:
        said = event.to_dict()
        told.append((said["event"], said.get("limit", said.get("reason"))))
    return told


@pytest.fixture
def lives(durable: Durable, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    monkeypatch.setattr(registry, "load", lambda name, endpoint=None: durable)
    return lambda: ringfence.open(backend=durable, ledger=ledger, detached=True, lifetime=600)


async def test_what_happens_is_told_while_another_holds_it(
    lives: Callable[[], Any], ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By looks alone: its holder goes on with it meanwhile, and ends it."""
    events: list[Event] = []
    async with lives() as sandbox:
        looks = Looks(
            monkeypatch,
            ("running", used(oom_kills=3)),
            (BackendUnavailableError("busy"), used()),
            ("running", used(oom_kills=4, forks_refused=2)),
            ("paused", used()),
            (BackendUnavailableError("busy"), used()),
            ("paused", used()),
            ("running", used(None, None)),
            ("running", used(oom_kills=5, forks_refused=5)),
        )
        following = asyncio.ensure_future(
            follow(sandbox.id[:8], events.append, interval=INTERVAL, ledger=ledger)
        )
        while looks.seen < 11:
            assert (await sandbox.exec(["true"])).ok
        await sandbox.delete()
        await following
    assert short(events) == [
        ("LimitHit", "memory"), ("LimitHit", "pids"), ("Paused", None), ("Resumed", None),
        ("LimitHit", "memory"), ("LimitHit", "pids"), ("Deleted", "deleted"),
    ]  # fmt: skip
    assert {event.sandbox_id for event in events} == {sandbox.id}


async def test_an_end_by_a_limit_is_told_as_one(
    lives: Callable[[], Any], ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    async with lives() as sandbox:
        ledger.unfinished(sandbox.id, "cpu_time")
        Looks(monkeypatch, ("running", used()), ("exited", used()))
        await follow(sandbox.id, events.append, interval=INTERVAL, ledger=ledger)
        monkeypatch.undo()
        await sandbox.delete()
    assert short(events) == [("LimitHit", "cpu_time"), ("Deleted", "cpu_time")]


async def test_one_that_is_still_being_made_is_followed(
    lives: Callable[[], Any], ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record is read anew at each look."""
    events: list[Event] = []
    looked = []
    look = members.look

    async def looking(*args: Any) -> SandboxInfo:
        looked.append(await look(*args))
        return looked[-1]

    monkeypatch.setattr(members, "look", looking)
    async with lives() as sandbox:
        record = replace(ledger.get(sandbox.id).record, id="young", native="")
        ledger.add(record, owner=None)
        following = asyncio.ensure_future(
            follow("young", events.append, interval=INTERVAL, ledger=ledger)
        )
        while len(looked) < 3 and not following.done():
            await asyncio.sleep(INTERVAL)
        ledger.end("young", "create_failed")
        await asyncio.wait_for(following, 30)
        await sandbox.delete()
    assert short(events) == [("Deleted", "create_failed")]


async def test_what_has_ended_is_not_followed(lives: Callable[[], Any], ledger: Ledger) -> None:
    async with lives() as sandbox:
        await sandbox.delete()
    for name in (sandbox.id, "nosuch"):
        with pytest.raises(ringfence.NotFoundError):
            await follow(name, print, ledger=ledger)
