"""exec of `true` in a hardened container."""

import asyncio
import os
from pathlib import Path

import aiodocker

import ringfence
from tests.bench import engine
from tests.bench.measure import Line, at_least, below, interleaved


async def measure(rounds: int) -> list[Line]:
    rounds = rounds or 60
    docker = aiodocker.Docker()
    container = await engine.start(docker)
    try:
        async with ringfence.open(image=engine.IMAGE) as sandbox:
            times = await interleaved(
                {
                    "ours": lambda: sandbox.exec(["true"]),
                    "engine": lambda: engine.execute(container, ["true"]),
                    "subprocess": _subprocess,
                },
                rounds,
            )
            row = await interleaved({"ours": lambda: sandbox.exec(["true"])}, rounds)
            memory, descriptors = await _many(sandbox)
    finally:
        await engine.remove(container)
        await docker.close()
    ours = times["ours"]
    return [
        at_least("exec of true", ours, times["engine"], "the Engine's exec", 40),
        at_least("exec of true, in a row", row["ours"], times["engine"], "the Engine's exec", 40),
        at_least("exec of true", ours, times["subprocess"], "asyncio subprocess", 1),
        below("memory more after 10,000 execs", memory, 1024, "KiB"),
        below("descriptors more after 10,000 execs", descriptors, 1, "fds"),
    ]


async def _subprocess() -> None:
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()


async def _many(sandbox: ringfence.Sandbox) -> tuple[float, float]:
    for _ in range(500):
        await sandbox.exec(["true"])
    before = _rss(), len(os.listdir("/proc/self/fd"))
    for _ in range(10_000):
        await sandbox.exec(["true"])
    return _rss() - before[0], len(os.listdir("/proc/self/fd")) - before[1]


def _rss() -> float:
    status = Path("/proc/self/status").read_text()
    return float(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
