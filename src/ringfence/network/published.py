"""Ports inside that are reachable on the host's loopback, through the guest."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable
from functools import partial

from ringfence.errors import AlreadyExistsError, ResourceExhaustedError, SandboxError
from ringfence.network.duplex import Buffered, Duplex, SocketDuplex, join
from ringfence.spec.network import Port

LOOPBACK = "127.0.0.1"
CLIENTS_MOST = 128
"""Clients of one port that are taken at a time, as many as a guest carries connections."""
_QUEUE = 1024
"""Clients that wait to be taken, in the kernel; it may have a smaller bound (somaxconn)."""
_AGAIN_SECONDS = 0.05

Connect = Callable[[int], Awaitable[Duplex]]
"""A connection to a port inside. OSError when nothing listens there, BlockingIOError when there
are as many as can be."""


class PublishedPort:
    """A port of the sandbox and the host's loopback port that leads to it.

    Life: it listens from `publish` on; each client is *taken*, gets its connection inside, which
    it may have to wait for, and both are joined; `aclose` ends all of that.
    """

    def __init__(self, inside: int, listening: socket.socket, connect: Connect) -> None:
        self.inside = inside
        self.host: int = listening.getsockname()[1]
        self._listening = listening
        self._connect = connect
        self._room = asyncio.Semaphore(CLIENTS_MOST)
        self._turn = asyncio.Lock()
        self._serving: set[asyncio.Task[None]] = set()
        self._taking = asyncio.create_task(self._take_all())

    async def aclose(self) -> None:
        """Take no more clients, and break off those there are. Idempotent."""
        tasks = [self._taking, *self._serving]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self._listening.close()

    async def _take_all(self) -> None:
        while True:
            await self._room.acquire()
            try:
                client = await self._take()
            except OSError:
                self._room.release()
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            task = asyncio.create_task(self._serve(client))
            self._serving.add(task)
            task.add_done_callback(partial(self._served, client))

    async def _take(self) -> SocketDuplex:
        accepted, _ = await asyncio.get_running_loop().sock_accept(self._listening)
        return SocketDuplex(*await asyncio.open_connection(sock=accepted))

    def _served(self, client: SocketDuplex, task: "asyncio.Task[None]") -> None:
        client.close()
        self._serving.discard(task)
        self._room.release()

    async def _serve(self, client: SocketDuplex) -> None:
        try:
            inside = await self._inside()
        except (OSError, SandboxError):
            client.reset()
            return
        try:
            with contextlib.suppress(OSError, EOFError, SandboxError):
                await join(Buffered(client), inside, _ignore, _ignore)
        finally:
            inside.close()

    async def _inside(self) -> Duplex:
        """A connection inside. While there are as many as can be, which the proxy and other ports
        have a part in, one client asks again for all that wait."""
        if not self._turn.locked():
            with contextlib.suppress(BlockingIOError):
                return await self._connect(self.inside)
        async with self._turn:
            while True:
                with contextlib.suppress(BlockingIOError):
                    return await self._connect(self.inside)
                await asyncio.sleep(_AGAIN_SECONDS)


async def publish(port: Port, connect: Connect) -> PublishedPort:
    """Listen on the host's loopback and lead what connects there to the port inside.

    Each connection is made when a client comes, so the program inside may start later. Raises
    AlreadyExistsError when the host's port is taken.
    """
    try:
        listening = socket.create_server((LOOPBACK, port.host), backlog=_QUEUE)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AlreadyExistsError(
                f"network.ports: port {port.host} of this machine is taken: choose another, or 0",
                op="open",
            ) from None
        raise ResourceExhaustedError(
            f"network.ports: cannot listen on port {port.host}: {error.strerror}", op="open"
        ) from None
    listening.setblocking(False)
    return PublishedPort(port.inside, listening, connect)


def _ignore(_: int) -> None:
    return None
