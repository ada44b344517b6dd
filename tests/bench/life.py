"""Pause, resume, delete, and many one after the other."""

import asyncio
import time

import aiodocker

import ringfence
from tests.bench import engine
from tests.bench.measure import Line, Timed, at_least, below, interleaved

MANY = 40
AT_ONCE = 8
BATCHES = 3


async def measure(rounds: int) -> list[Line]:
    rounds = rounds or 15
    async with ringfence.open(image=engine.IMAGE) as sandbox:
        await sandbox.exec(["true"])
        frozen = await interleaved({"pause": sandbox.pause, "resume": sandbox.resume}, rounds)
    deleted = await _deletes(rounds)
    docker = aiodocker.Docker()
    try:
        many = await interleaved(
            {"ours": lambda: _many(_ours), "theirs": lambda: _many(lambda: _theirs(docker))},
            BATCHES,
            warm=0,
        )
    finally:
        await docker.close()
    return [
        below("pause", frozen["pause"] * 1e3, 2, "ms"),
        below("resume", frozen["resume"] * 1e3, 2, "ms"),
        below("delete", deleted * 1e3, 60, "ms"),
        at_least(
            f"{MANY} create+exec+delete, {AT_ONCE} at a time",
            many["ours"],
            many["theirs"],
            "plain Engine calls",
            2,
            scale=1e3 / MANY,
        ),
    ]


async def _deletes(rounds: int) -> float:
    times = []
    for _ in range(rounds):
        sandbox = await ringfence.open(image=engine.IMAGE)
        await sandbox.exec(["true"])
        begin = time.perf_counter()
        await sandbox.delete()
        times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2]


async def _many(one: Timed) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def turn() -> None:
        async with gate:
            await one()

    await asyncio.gather(*(turn() for _ in range(MANY)))


async def _ours() -> None:
    async with ringfence.open(image=engine.IMAGE) as sandbox:
        await sandbox.exec(["true"])


async def _theirs(docker: aiodocker.Docker) -> None:
    container = await engine.start(docker)
    try:
        await engine.execute(container, ["true"])
    finally:
        await engine.remove(container)
