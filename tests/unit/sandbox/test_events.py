"""The bus and its streams."""

import asyncio

import pytest

import ringfence
from ringfence.backends.mock import MockBackend
from ringfence.events import KEPT, Deleted, EventBus, Lost


async def test_a_failing_subscriber_hurts_nobody() -> None:
    """It is reported to the loop; the others get the event."""
    bus, seen, reported = EventBus(), [], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def broken(event: object) -> None:
        raise LookupError

    bus.subscribe(broken)
    bus.subscribe(seen.append)
    bus.publish(Lost(sandbox_id="x", message="m"))
    assert len(seen) == 1
    assert isinstance(reported[0]["exception"], LookupError)


async def test_a_stream_drops_the_oldest_and_counts() -> None:
    """A reader that does not read costs a bounded amount."""
    bus = EventBus()
    stream = bus.stream()
    for number in range(KEPT + 5):
        bus.publish(Lost(sandbox_id=str(number), message=""))
    assert stream.dropped == 5
    assert (await anext(stream)).sandbox_id == "5"
    stream.close()
    rest = [event async for event in stream]
    assert len(rest) == KEPT - 1


async def test_unsubscribing_is_final() -> None:
    """Nothing comes any more; doing it twice is fine."""
    bus, seen = EventBus(), []
    end = bus.subscribe(seen.append)
    end()
    end()
    bus.publish(Deleted(sandbox_id="x", reason="r"))
    assert seen == []


def test_an_event_is_data() -> None:
    """Its dictionary holds its name."""
    event = Deleted(sandbox_id="x", at=1.0, reason="idle")
    assert event.to_dict() == {"event": "Deleted", "sandbox_id": "x", "at": 1.0, "reason": "idle"}


async def test_the_stream_of_a_sandbox_ends_with_it() -> None:
    """Its Deleted is the last event, whatever comes on the same bus; afterwards there is none."""
    bus = ringfence.EventBus()
    async with ringfence.open(backend=MockBackend(), events=bus) as other:
        async with ringfence.open(backend=MockBackend(), events=bus) as sandbox:
            stream = sandbox.events()
        await other.exec(["true"])
        names = [event.name async for event in stream]
        assert names == ["Deleted"]
        assert [event async for event in sandbox.events()] == []


@pytest.mark.parametrize("by_name", [False, True])
async def test_leaving_a_detached_sandbox_is_told_once(by_name: bool) -> None:
    """And it ends the stream of whoever held it; one that was deleted was not left."""
    mock = MockBackend()
    async with ringfence.open(backend=mock, detached=True, lifetime=60) as sandbox:
        stream = sandbox.events()
        if by_name:
            await sandbox.detach()
    assert [event.name async for event in stream] == ["Detached"]
    assert [event.name for event in sandbox.history].count("Detached") == 1
    async with ringfence.open(id=sandbox.id, backend=mock) as again:
        await again.delete()
    assert again.history[-1].name == "Deleted"


async def test_the_loss_of_a_session_ends_the_stream_of_its_holder() -> None:
    """A detached sandbox goes on, and nothing more is told here."""
    mock = MockBackend()
    sandbox = await ringfence.open(backend=mock, detached=True, lifetime=60)
    stream = sandbox.events()
    sandbox._context.session.lose(ringfence.SandboxLostError("the wire was cut"))
    assert [event.name async for event in stream] == ["Lost", "Detached"]
    assert [event async for event in sandbox.events()] == []
    await sandbox.aclose()
    assert [event.name for event in sandbox.history].count("Detached") == 1
    async with ringfence.open(id=sandbox.id, backend=mock) as again:
        await again.delete()
