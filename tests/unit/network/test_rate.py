"""What goes over a connection is paid for once, at the rate, whatever was left unused before."""

from types import SimpleNamespace

import pytest

from ringfence.network import rate
from ringfence.network.rate import Bucket

RATE = 1_000_000


class Clock:
    """Stands for asyncio: its time passes where it is told to, and it tells what was slept."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def get_running_loop(self) -> SimpleNamespace:
        return SimpleNamespace(time=lambda: self.now)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


class Silent:
    """A stream that takes everything."""

    async def read(self, size: int = 0) -> bytes:
        return bytes(size)

    def write(self, data: bytes) -> None:
        pass

    async def drain(self) -> None:
        pass

    write_eof = close = reset = lambda self: None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(rate, "asyncio", found)
    return found


async def test_what_was_not_used_is_no_more_than_a_quarter_second(clock: Clock) -> None:
    bucket = Bucket(RATE)
    for _ in range(2):
        await bucket.take(RATE // 4)
        assert clock.slept == []
        await bucket.take(RATE // 10)
        assert clock.slept == [0.1]
        clock.slept.clear()
        clock.now += 3600


async def test_both_directions_are_paid_for_together_and_once(clock: Clock) -> None:
    stream = Bucket(RATE).slow(Silent())
    await stream.read(RATE // 4)
    stream.write(bytes(RATE // 10))
    stream.write(bytes(RATE // 10))
    assert clock.slept == []
    await stream.drain()
    await stream.drain()
    assert clock.slept == [0.2]
