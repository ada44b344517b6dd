"""Usage of many sandboxes at an interval, with one task for all of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from ringfence.errors import SandboxError
from ringfence.spec import Usage
from ringfence.spec.quantity import check_interval


class Readable(Protocol):
    """What gives a usage: a `Reader`, or anything like it."""

    def read(self) -> Usage:
        """The usage now; a SandboxError when it has ended."""
        ...

    def close(self) -> None:
        """Give up what it holds. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one sandbox.

    time: seconds since the epoch. cpu_percent: of one core since the sample before, None in the
    first.
    """

    id: str
    time: float
    usage: Usage
    cpu_percent: float | None = None


class Sampler:
    """Reads the sandboxes that were added, all of them once per interval.

    A sandbox whose reader says that it ended is closed and removed; its last sample stays in
    `last` until `remove`. It is not safe to use from several threads.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._readers: dict[str, Readable] = {}
        self.last: dict[str, Sample] = {}

    def add(self, sandbox_id: str, reader: Readable) -> None:
        """Sample `reader` as `sandbox_id`; the sampler closes it. A reader before it is closed."""
        before = self._readers.pop(sandbox_id, None)
        if before is not None:
            before.close()
        self._readers[sandbox_id] = reader

    def remove(self, sandbox_id: str) -> None:
        """Stop sampling and forget it. Idempotent."""
        self.last.pop(sandbox_id, None)
        reader = self._readers.pop(sandbox_id, None)
        if reader is not None:
            reader.close()

    def __len__(self) -> int:
        return len(self._readers)

    def sample(self) -> list[Sample]:
        """One sample of each sandbox that still lives, about 0.05 ms each."""
        samples = []
        for sandbox_id, reader in list(self._readers.items()):
            try:
                usage = reader.read()
            except SandboxError:
                del self._readers[sandbox_id]
                reader.close()
                continue
            now = self._clock()
            before = self.last.get(sandbox_id)
            sample = Sample(sandbox_id, now, usage, _percent(before, now, usage))
            self.last[sandbox_id] = sample
            samples.append(sample)
        return samples

    def samples(self, interval: float = 1.0) -> AsyncIterator[list[Sample]]:
        """All samples every `interval` seconds, without end. InvalidSpecError. Cancellation changes
        nothing."""
        check_interval(interval)
        return self._samples(interval)

    async def _samples(self, interval: float) -> AsyncIterator[list[Sample]]:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            yield self.sample()
            due = max(due + interval, loop.time())
            await asyncio.sleep(due - loop.time())

    def close(self) -> None:
        """Close every reader. Idempotent."""
        for sandbox_id in list(self._readers):
            self.remove(sandbox_id)


def _percent(before: Sample | None, now: float, usage: Usage) -> float | None:
    if before is None or usage.cpu_seconds is None or before.usage.cpu_seconds is None:
        return None
    elapsed = now - before.time
    if elapsed <= 0:
        return None
    return max(0.0, 100.0 * (usage.cpu_seconds - before.usage.cpu_seconds) / elapsed)
