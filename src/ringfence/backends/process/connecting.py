"""A later session with a sandbox: its guest dials again."""

import asyncio
import socket

from ringfence.backends.door import Door, lock
from ringfence.backends.process.home import Home
from ringfence.backends.process.keeper import Keeper
from ringfence.errors import DeadlineExceededError, SandboxLostError

_CONNECT_SECONDS = 10.0


async def dialled(home: Home, keeper: Keeper) -> socket.socket:
    """The connection of a sandbox's guest, for which a door is open meanwhile.

    StateError where another holds the door, SandboxLostError when the sandbox ends meanwhile,
    DeadlineExceededError after 10 s.
    """
    with Door(home.run, lock(home.path)) as door:
        return await _guest_comes(door, home, keeper, _CONNECT_SECONDS)


async def _guest_comes(door: Door, home: Home, keeper: Keeper, seconds: float) -> socket.socket:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        if not keeper.alive():
            raise SandboxLostError("connect: the sandbox has ended", op="connect")
        news: asyncio.Future[None] = loop.create_future()
        timer = loop.call_at(until, _tell, news)
        loop.add_reader(door.fileno(), _tell, news)
        try:
            with keeper.told(news):
                await news
        finally:
            timer.cancel()
            loop.remove_reader(door.fileno())
        connection = door.accepted(home.guest)
        if connection is not None:
            return connection
    raise DeadlineExceededError(
        f"connect: the guest did not dial within {seconds:g} s", op="connect"
    )


def _tell(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
