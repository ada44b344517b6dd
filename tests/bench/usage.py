"""Measuring: one usage, a hundred sandboxes once a second."""

import asyncio
import contextlib
import time

import aiodocker

import ringfence
from tests.bench import engine
from tests.bench.measure import Line, at_least, below, interleaved

SANDBOXES = 100
SECONDS = 10


async def measure(rounds: int) -> list[Line]:
    rounds = rounds or 5
    docker = aiodocker.Docker()
    container = await engine.start(docker)
    try:
        async with ringfence.open(image=engine.IMAGE) as sandbox:
            times = await interleaved(
                {"ours": sandbox.usage, "engine": lambda: container.stats(stream=False)},
                rounds,
                warm=1,
            )
            quick = await interleaved({"ours": sandbox.usage}, 200)
    finally:
        await engine.remove(container)
        await docker.close()
    share = await _many()
    return [
        below("usage()", quick["ours"] * 1e3, 0.2, "ms"),
        at_least("usage()", times["ours"], times["engine"], "the Engine's stats", 1000),
        below(f"{SANDBOXES} sandboxes at 1 Hz, share of a core", share * 100, 2, "%"),
    ]


async def _many() -> float:
    """Processor time of sampling alone: with it less without it, over the seconds."""
    async with contextlib.AsyncExitStack() as stack:
        opening = [
            stack.enter_async_context(ringfence.open(backend="process")) for _ in range(SANDBOXES)
        ]
        sandboxes = await asyncio.gather(*opening)
        idle = await _cpu_of(asyncio.sleep(SECONDS))
        busy = await _cpu_of(_sample(sandboxes))
    return max(0.0, busy - idle) / SECONDS


async def _sample(sandboxes: list[ringfence.Sandbox]) -> None:
    for _ in range(SECONDS):
        for sandbox in sandboxes:
            await sandbox.usage()
        await asyncio.sleep(1)


async def _cpu_of(work: object) -> float:
    begin = time.process_time()
    await work  # type: ignore[misc]
    return time.process_time() - begin
