"""From create to the first `true` done, and the receipt's share of it."""

import aiodocker

import ringfence
from tests.bench import engine
from tests.bench.measure import Line, at_least, interleaved


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
    finally:
        await tidy()
        await docker.close()
    return [
        at_least("create to first true", times["ours"], times["engine"], "plain Engine calls", 2),
        at_least("create, true, delete", whole["ours"], whole["engine"], "plain Engine calls", 2),
    ]
