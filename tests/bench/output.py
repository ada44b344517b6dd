"""100 MiB of stdout, streamed."""

import aiodocker

import ringfence
from tests.bench import engine
from tests.bench.measure import Line, at_least, interleaved

MIB = 100
COMMAND = ["dd", "if=/dev/zero", "bs=1M", f"count={MIB}", "status=none"]


async def measure(rounds: int) -> list[Line]:
    rounds = rounds or 5
    docker = aiodocker.Docker()
    container = await engine.start(docker)
    try:
        async with ringfence.open(image=engine.IMAGE) as sandbox:

            async def ours() -> None:
                size = 0
                async with sandbox.spawn(COMMAND) as process:
                    async for chunk in process.stdout:
                        size += len(chunk)
                assert size == MIB << 20

            async def theirs() -> None:
                assert await engine.execute(container, COMMAND) == MIB << 20

            times = await interleaved({"ours": ours, "engine": theirs}, rounds, warm=1)
    finally:
        await engine.remove(container)
        await docker.close()
    return [
        at_least("100 MiB of stdout", times["ours"], times["engine"], "the Engine's stream", 4),
        Line("its rate", MIB / times["ours"], "MiB/s"),
    ]
