"""Sandboxes are listed, measured, frozen and deleted by those who do not hold them."""

import json
import sqlite3
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.backends import registry
from ringfence.backends.mock.backend import MockInstance
from ringfence.errors import BackendUnavailableError, NotFoundError
from ringfence.ledger import Ledger, Owner
from ringfence.sandbox import members
from ringfence.spec import State, Usage

from .conftest import Durable

DEAD = Owner(2**22 + 1, 1, Owner.me().boot)


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


@pytest.mark.parametrize("workspace", [None, {"directory": "/nowhere"}])
async def test_one_that_somebody_ends_meanwhile_is_listed_with_their_reason(
    workspace: dict[str, Any] | None,
    durable: Durable,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not as lost: it is gone once its record was read, which in a long list is a while ago."""
    name = await detached(durable, ledger)
    if workspace is not None:
        ledger.changed(name, ledger.get(name).record.spec, workspace)

    async def attach(_: object) -> None:
        ledger.unfinished(name, "cpu_time")
        raise NotFoundError("there is no such sandbox", op="attach")

    monkeypatch.setattr(durable.mock, "attach", attach)
    for _ in range(2):
        [info] = await ringfence.list_sandboxes(ended=True, ledger=ledger)
        assert (info.state, info.reason) == (State.EXITED, "cpu_time")


async def test_what_runs_and_what_has_ended_are_in_one_order(
    durable: Durable, ledger: Ledger
) -> None:
    names = [await detached(durable, ledger) for _ in range(3)]
    ledger.end(names[0], "deleted")
    ledger.end(names[2], "deleted")
    found = await ringfence.list_sandboxes(ended=True, ledger=ledger)
    assert [info.id for info in found] == names


async def test_the_state_is_the_backends_word(durable: Durable, ledger: Ledger) -> None:
    """One that was removed by hand is written off, and its reason stays on record."""
    name = await detached(durable, ledger)
    await durable.mock._instances[name].delete()
    assert await ringfence.list_sandboxes(ledger=ledger) == []
    [info] = await ringfence.list_sandboxes(ended=True, ledger=ledger)
    assert info.state is State.EXITED
    assert info.reason == "lost"


async def test_what_is_gone_with_its_holder_is_its_holders_loss(
    durable: Durable, ledger: Ledger
) -> None:
    """Whoever looks before the next who reaps says the same as that one."""
    name = await detached(durable, ledger)
    record = replace(ledger.get(name).record, id="one")
    ledger.end(name, "deleted")
    for owner, reason in ((DEAD, "client_lost"), (Owner.me(), "lost")):
        ledger.add(replace(record, id=reason), owner=owner)
    found = await ringfence.list_sandboxes(ended=True, ledger=ledger)
    assert {info.id: info.reason for info in found if info.id != name} == {
        "client_lost": "client_lost", "lost": "lost"
    }  # fmt: skip


async def test_one_of_another_version_is_listed_with_a_warning_deleted_and_never_opened(
    durable: Durable, ledger: Ledger
) -> None:
    """Its row says more than this version knows; the others are listed as ever."""
    other = await detached(durable, ledger, labels={"team": "a"})
    plain = await detached(durable, ledger)
    spec = {"detached": True, "lifetime": 600, "labels": {"team": "a"}, "hologram": True}
    respecified(ledger, other, spec)
    first, second = await ringfence.list_sandboxes(ledger=ledger)
    assert (first.id, first.state, first.detached) == (other, State.RUNNING, True)
    assert "hologram" in str(first.warning)
    assert (second.id, second.warning) == (plain, None)
    assert [info.id for info in await ringfence.list_sandboxes(labels={"team": "a"}, ledger=ledger)]
    with pytest.raises(ringfence.StateError, match="hologram"):
        await ringfence.open(id=other, backend=None, ledger=ledger)
    await ringfence.delete_sandbox(other, ledger=ledger)
    assert durable.mock._instances[other].guest.dead


@pytest.mark.parametrize("lifetime", [600, -1])
async def test_one_with_a_control_that_is_none_here_is_shown_and_deleted(
    durable: Durable, ledger: Ledger, lifetime: float
) -> None:
    """To open it takes the version that made it; the error says so, and what else can be done.
    -1: a field that would not go with `detached`."""
    plain, other = [await detached(durable, ledger) for _ in range(2)]
    security = {"allow_degraded": ["memory", "quantum_lock"]}
    respecified(ledger, other, {"detached": True, "lifetime": lifetime, "security": security})
    with pytest.raises(ringfence.StateError) as caught:
        await ringfence.open(id=other, backend=None, ledger=ledger)
    assert "'quantum_lock' is no control" in str(caught.value)
    assert f"than this one ({version('ringfence')})" in str(caught.value)
    assert f"`ringfence rm {other}`" in str(caught.value)
    info = await members.from_elsewhere(other, ledger=ledger)
    assert info is not None
    assert (info.id, info.state, info.detached) == (other, State.RUNNING, True)
    assert "quantum_lock" in str(info.warning)
    assert await members.from_elsewhere(plain, ledger=ledger) is None
    with pytest.raises(ringfence.UnsupportedError, match="mock"):  # nobody is said to hold it
        await ringfence.pause_sandbox(other, ledger=ledger)
    assert (await ringfence.delete_sandbox(other, ledger=ledger)).state is State.EXITED
    assert durable.mock._instances[other].guest.dead


def respecified(ledger: Ledger, name: str, spec: dict[str, Any]) -> None:
    """Have a row say that it was granted something else."""
    with sqlite3.connect(ledger.path) as connection:
        connection.execute("UPDATE sandboxes SET spec = ? WHERE id = ?", (json.dumps(spec), name))
    connection.close()


async def test_what_is_found_gone_keeps_its_record_until_its_workspace_is_undone(
    durable: Durable, ledger: Ledger, tmp_path: Path
) -> None:
    """Whoever looks only looks; whoever reaps next removes what lies on this host."""
    name = await detached(durable, ledger)
    record = ledger.get(name).record
    ledger.end(name, "deleted")
    workspace = tmp_path / "workspaces" / "one"
    ledger.add(replace(record, id="one"), owner=None, workspace={"directory": str(workspace)})
    assert [info.id for info in await ringfence.list_sandboxes(ledger=ledger)] == []
    with pytest.raises(ringfence.NotFoundError):
        await ringfence.open(id="one", ledger=ledger)
    [entry] = ledger.live()
    assert entry.workspace == {"directory": str(workspace)}
    assert (entry.reason, entry.expired()) == ("lost", True)


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
