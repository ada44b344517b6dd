"""From create to the first `true` done, the receipt's share of it, and the price of strict."""

import statistics
import time
from typing import Any
from unittest import mock

import aiodocker

import ringfence
from ringfence.sandbox import receipt
from tests.bench import engine
from tests.bench.measure import Line, at_least, at_most, below, interleaved


async def measure(rounds: int) -> list[Line]:
    rounds = rounds or 10
    docker = aiodocker.Docker()

    async def ours() -> None:
        async with ringfence.open(image=engine.IMAGE) as sandbox:
            await sandbox.exec(["true"])

    async def theirs() -> None:
        container = await engine.start(docker)
        try:
            await engine.execute(container, ["true"])
        finally:
            await engine.remove(container)

    opened: list[ringfence.Sandbox] = []
    started: list[aiodocker.containers.DockerContainer] = []

    async def ours_started() -> None:
        sandbox = await ringfence.open(image=engine.IMAGE)
        await sandbox.exec(["true"])
        opened.append(sandbox)

    async def theirs_started() -> None:
        container = await engine.start(docker)
        await engine.execute(container, ["true"])
        started.append(container)

    async def tidy() -> None:
        while opened:
            await opened.pop().delete()
        while started:
            await engine.remove(started.pop())

    try:
        times = await interleaved(
            {"ours": ours_started, "engine": theirs_started, "tidy": tidy}, rounds
        )
        whole = await interleaved({"ours": ours, "engine": theirs}, rounds)
        flags = await _flags(docker, rounds)
    finally:
        await tidy()
        await docker.close()
    return [
        at_least("create to first true", times["ours"], times["engine"], "plain Engine calls", 2),
        at_least("create, true, delete", whole["ours"], whole["engine"], "plain Engine calls", 2),
        at_most(
            "container with strict's flags", flags["strict"], flags["plain"], "Docker's own", 1.15
        ),
        below("receipt", await _receipt(rounds) * 1e3, 10, "ms"),
    ]


async def _flags(docker: aiodocker.Docker, rounds: int) -> dict[str, float]:
    """Create and start through the Engine alone: with what strict asks of it, and with none of it
    but the same network."""
    async with ringfence.open(image=engine.IMAGE, profile="strict") as sandbox:
        [found] = await docker.containers.list(
            filters={"label": [f"ringfence.id={sandbox.info.id}"]}
        )
        seen = await found.show()
    strict = {**seen["HostConfig"], "Mounts": [], "Binds": []}
    made: list[aiodocker.containers.DockerContainer] = []

    async def start(host: dict[str, Any]) -> None:
        command = ["sleep", "3600"]
        config: dict[str, Any] = {"Image": engine.IMAGE, "Cmd": command, "HostConfig": host}
        made.append(await docker.containers.create(config))
        await made[-1].start()

    async def tidy() -> None:
        while made:
            await engine.remove(made.pop())

    things = {
        "strict": lambda: start(strict),
        "plain": lambda: start({"NetworkMode": "none"}),
        "tidy": tidy,
    }
    try:
        return await interleaved(things, rounds)
    finally:
        await tidy()


async def _receipt(rounds: int) -> float:
    """Median seconds of reading one while a sandbox is opened."""
    times: list[float] = []
    read = receipt.read

    async def timed(*args: Any, **options: Any) -> ringfence.Receipt:
        begin = time.perf_counter()
        found = await read(*args, **options)
        times.append(time.perf_counter() - begin)
        return found

    with mock.patch.object(receipt, "read", timed):
        for _ in range(rounds):
            async with ringfence.open(image=engine.IMAGE):
                pass
    return statistics.median(times)
