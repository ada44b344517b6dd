"""Taking a warm sandbox from a pool."""

import asyncio
import time

import ringfence
from tests.bench import engine
from tests.bench.measure import Line, below


async def measure(rounds: int) -> list[Line]:
    rounds = rounds or 20
    return [
        below("acquire, process", await _acquire(rounds, backend="process") * 1e3, 1, "ms"),
        below("acquire, docker", await _acquire(rounds, image=engine.IMAGE) * 1e3, 1, "ms"),
    ]


async def _acquire(rounds: int, **spec: str) -> float:
    times = []
    async with ringfence.pool(ringfence.SandboxSpec.parse(spec), size=2) as pool:
        for _ in range(rounds):
            await pool.fill()
            await asyncio.sleep(0.05)
            begin = time.perf_counter()
            async with pool.acquire():
                times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2]
