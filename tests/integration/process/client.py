"""A client of its own process, for tests that kill it: prints what it made, then waits.

python -m tests.integration.process.client COUNT [detached], or "closed DESCRIPTOR...": it closes
these of its own, and makes one.
"""

import asyncio
import os
import sys

from ringfence.backends.process import ProcessBackend
from ringfence.guest.request import ExecRequest
from ringfence.guest.session import Session
from ringfence.sandbox.greeting import greet
from tests.integration.process.conftest import grant, new_id


async def main(count: int, detached: bool) -> None:
    backend = ProcessBackend()
    wanted = {"detached": True, "lifetime": 60.0} if detached else {}
    spec, facts = await grant(backend, **wanted)
    for _ in range(count):
        instance = await backend.create(spec, new_id(), facts)
        session = await Session.start(
            instance.connect, lifetime=spec.lifetime, detached=spec.detached
        )
        await session.spawn(
            ExecRequest(args=("/bin/sh", "-c", "trap '' TERM; sleep 1000 & wait"), uid=1000)
        )
        print(instance.record.id, flush=True)
    print("ready", flush=True)
    await asyncio.sleep(1000)


async def closed(numbers: list[int]) -> None:
    """Make a sandbox where these numbers are free: what is opened next gets them."""
    backend = ProcessBackend()
    spec, facts = await grant(backend)
    for number in numbers:
        os.close(number)
    instance = await backend.create(spec, new_id(), facts)
    session = await greet(instance, spec)
    print("ready", flush=True)
    await session.close()
    await instance.delete()


async def loop() -> None:
    backend = ProcessBackend()
    spec, facts = await grant(backend)
    print("ready", flush=True)
    while True:
        instance = await backend.create(spec, new_id(), facts)
        session = await Session.start(instance.connect)
        await session.run(ExecRequest(args=("/bin/true",), uid=1000))
        await instance.delete()
        await session.close()


if __name__ == "__main__":
    if sys.argv[1] == "loop":
        asyncio.run(loop())
    elif sys.argv[1] == "closed":
        asyncio.run(closed([int(number) for number in sys.argv[2:]]))
    else:
        asyncio.run(main(int(sys.argv[1]), "detached" in sys.argv[2:]))
