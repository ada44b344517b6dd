"""Taking a warm sandbox from a pool, and one that gets a repository then."""

import asyncio
import tempfile
import time
from pathlib import Path

import ringfence
from tests.bench import engine
from tests.bench.measure import Line, below


async def measure(rounds: int) -> list[Line]:
    rounds = rounds or 20
    return [
        below("acquire, process", await _acquire(rounds, backend="process") * 1e3, 1, "ms"),
        below("acquire, docker", await _acquire(rounds, image=engine.IMAGE) * 1e3, 1, "ms"),
        await _with_repository(rounds, backend="process"),
        await _with_repository(rounds, backend="docker", image=engine.IMAGE),
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


async def _with_repository(rounds: int, **spec: str) -> Line:
    """A small repository, bound as a member is acquired; against opening a sandbox with it."""
    wanted = ringfence.SandboxSpec.parse(spec)
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-") as place:
        for number in range(40):
            (Path(place) / f"file{number}").write_text(f"{number}\n")
        ours, theirs = [], []
        async with ringfence.pool(wanted, size=1) as pool:
            for _ in range(rounds):
                await pool.fill()
                await asyncio.sleep(0.05)
                begin = time.perf_counter()
                async with pool.acquire(repository=place):
                    ours.append(time.perf_counter() - begin)
                    await pool.fill()
                await asyncio.sleep(0.05)
                begin = time.perf_counter()
                async with ringfence.open(wanted, repository=place):
                    theirs.append(time.perf_counter() - begin)
    taken, opened = (sorted(times)[len(times) // 2] for times in (ours, theirs))
    name = f"acquire with a repository, {spec['backend']}"
    return Line(name, taken * 1e3, "ms", taken / opened, "opening with it")
