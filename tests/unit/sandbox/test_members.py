"""Sandboxes are listed, measured, frozen and deleted by those who do not hold them."""

from typing import Any

import pytest

import ringfence
from ringfence.backends import registry
from ringfence.backends.mock.backend import MockInstance
from ringfence.errors import BackendUnavailableError
from ringfence.ledger import Ledger
from ringfence.spec import State, Usage

from .conftest import Durable


@pytest.fixture(autouse=True)
def _one_backend(durable: Durable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is on record is on this test's mock."""
    monkeypatch.setattr(registry, "load", lambda name, endpoint=None: durable)


async def detached(durable: Durable, ledger: Ledger, **more: Any) -> str:
    """The id of a sandbox that nobody holds."""
    async with ringfence.open(
        backend=durable, ledger=ledger, detached=True, lifetime=600, **more
    ) as sandbox:
        return sandbox.id


async def test_the_list_is_chosen_by_labels(durable: Durable, ledger: Ledger) -> None:
    """All of them must be there with their values."""
    first = await detached(durable, ledger, labels={"team": "a", "job": "1"})
    second = await detached(durable, ledger, labels={"team": "a", "job": "2"})
    for labels, expected in (
        (None, [first, second]),
        ({"team": "a"}, [first, second]),
        ({"team": "a", "job": "2"}, [second]),
        ({"team": "b"}, []),
    ):
        found = await ringfence.list_sandboxes(labels=labels, ledger=ledger)
        assert [info.id for info in found] == expected
        assert all(info.state is State.RUNNING for info in found)
    assert found == []


async def test_the_state_is_the_backends_word(durable: Durable, ledger: Ledger) -> None:
    """One that was removed by hand is written off, and its reason stays on record."""
    name = await detached(durable, ledger)
    await durable.mock._instances[name].delete()
    assert await ringfence.list_sandboxes(ledger=ledger) == []
    [info] = await ringfence.list_sandboxes(ended=True, ledger=ledger)
    assert info.state is State.EXITED
    assert info.reason == "lost"


async def test_a_backend_that_is_away_writes_nothing_off(
    durable: Durable, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await detached(durable, ledger)

    async def away(record: object) -> None:
        raise BackendUnavailableError("no daemon")

    monkeypatch.setattr(durable.mock, "attach", away)
    [info] = await ringfence.list_sandboxes(ledger=ledger)
    assert info.reason == "unknown: no daemon"
    assert [entry.record.id for entry in ledger.live()] == [name]


async def test_deleting_by_the_beginning_of_an_id_can_be_repeated(
    durable: Durable, ledger: Ledger
) -> None:
    name = await detached(durable, ledger)
    for _ in range(2):
        info = await ringfence.delete_sandbox(name[:8], ledger=ledger)
        assert (info.id, info.state, info.reason) == (name, State.EXITED, "deleted")
    assert ledger.live() == []
    with pytest.raises(ringfence.NotFoundError):
        await ringfence.delete_sandbox("nosuchsandbox", ledger=ledger)


async def test_what_cannot_be_frozen_says_so(durable: Durable, ledger: Ledger) -> None:
    """The mock has no freezer, and an id that is not on record has nothing at all."""
    name = await detached(durable, ledger)
    for change in (ringfence.pause_sandbox, ringfence.resume_sandbox):
        with pytest.raises(ringfence.UnsupportedError, match="mock"):
            await change(name, ledger=ledger)
        with pytest.raises(ringfence.NotFoundError):
            await change("nosuchsandbox", ledger=ledger)


async def test_one_that_is_held_is_not_frozen_under_its_holder(
    durable: Durable, ledger: Ledger
) -> None:
    """Only its holder can tell the lease that it stands still."""
    async with ringfence.open(backend=durable, ledger=ledger) as sandbox:
        with pytest.raises(ringfence.StateError, match="held"):
            await ringfence.pause_sandbox(sandbox.id, ledger=ledger)
        assert (await sandbox.exec(["true"])).ok


async def test_usages_leave_out_what_ended(
    durable: Durable, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that run, or of those that are named."""

    async def usage(self: object) -> Usage:
        return Usage(memory=4096)

    first = await detached(durable, ledger)
    second = await detached(durable, ledger)
    assert [one async for one in ringfence.usages(ledger=ledger)] == []
    monkeypatch.setattr(MockInstance, "usage", usage)
    found = {name: usage.memory async for name, usage in ringfence.usages(ledger=ledger)}
    assert found == {first: 4096, second: 4096}
    await durable.mock._instances[first].delete()
    assert [name async for name, _ in ringfence.usages([first, second], ledger=ledger)] == [second]
    with pytest.raises(ringfence.NotFoundError):
        [name async for name, _ in ringfence.usages(["nosuchsandbox"], ledger=ledger)]
