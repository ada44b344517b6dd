"""One sampler reads many sandboxes and drops those that ended."""

import pytest

from ringfence.errors import InvalidSpecError, NotFoundError
from ringfence.metrics import Sampler
from ringfence.spec import Usage


class Fake:
    """A sandbox whose processor time is said by a list, and that has ended at its end."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)
        self.closed = 0

    def read(self) -> Usage:
        if not self.seconds:
            raise NotFoundError("gone")
        return Usage(cpu_seconds=self.seconds.pop(0))

    def close(self) -> None:
        self.closed += 1


def clock(*times: float) -> Sampler:
    left = list(times)
    return Sampler(clock=lambda: left.pop(0))


def test_the_share_of_a_core_is_what_was_used_between_two_samples() -> None:
    sampler = clock(10.0, 12.0, 12.0)
    sampler.add("a", Fake(1.0, 1.5, 9.0))
    assert [sample.cpu_percent for sample in sampler.sample()] == [None]
    assert [sample.cpu_percent for sample in sampler.sample()] == [25.0]
    assert [sample.cpu_percent for sample in sampler.sample()] == [None]


def test_a_sandbox_that_ended_is_closed_and_its_last_sample_kept() -> None:
    sampler = clock(1.0, 1.0, 2.0)
    ended, alive = Fake(1.0), Fake(1.0, 2.0)
    sampler.add("ended", ended)
    sampler.add("alive", alive)
    assert len(sampler.sample()) == 2
    assert [sample.id for sample in sampler.sample()] == ["alive"]
    assert (len(sampler), ended.closed) == (1, 1)
    assert sampler.last["ended"].usage.cpu_seconds == 1.0
    sampler.close()
    assert alive.closed == 1
    assert "alive" not in sampler.last


def test_a_new_reader_replaces_and_closes_the_old_one() -> None:
    sampler = Sampler()
    old, new = Fake(1.0), Fake(2.0)
    sampler.add("a", old)
    sampler.add("a", new)
    assert old.closed == 1
    assert [sample.usage.cpu_seconds for sample in sampler.sample()] == [2.0]
    sampler.remove("a")
    sampler.remove("a")
    assert (new.closed, sampler.sample()) == (1, [])


async def test_samples_come_at_an_interval_without_end() -> None:
    sampler = Sampler()
    sampler.add("a", Fake(1.0, 2.0, 3.0))
    seen = []
    async for samples in sampler.samples(0.01):
        seen.append([sample.usage.cpu_seconds for sample in samples])
        if len(seen) == 4:
            break
    assert seen == [[1.0], [2.0], [3.0], []]


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf"), True, "1"])
def test_what_is_no_interval(interval: float) -> None:
    """InvalidSpecError at once, not a loop that never rests."""
    with pytest.raises(InvalidSpecError, match=r"^interval: "):
        Sampler().samples(interval)
