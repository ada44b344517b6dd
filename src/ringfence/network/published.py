"""Ports inside that are reachable on the host's loopback, through the guest."""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ringfence.errors import AlreadyExistsError, ResourceExhaustedError, SandboxError
from ringfence.network.duplex import Buffered, Duplex, SocketDuplex, join
from ringfence.spec.network import Port

LOOPBACK = "127.0.0.1"

Connect = Callable[[int], Awaitable[Duplex]]
"""A connection to a port inside. OSError when nothing listens there."""


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A port of the sandbox and the host's loopback port that leads to it."""

    inside: int
    host: int
    server: asyncio.Server

    async def aclose(self) -> None:
        """Take no more connections. Idempotent."""
        self.server.close()


async def publish(port: Port, connect: Connect) -> PublishedPort:
    """Listen on the host's loopback and lead what connects there to the port inside.

    Each connection is made when a client comes, so the program inside may start later. Raises
    AlreadyExistsError when the host's port is taken.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = SocketDuplex(reader, writer)
        try:
            inside = await connect(port.inside)
        except (OSError, SandboxError):
            client.reset()
            return
        try:
            await join(Buffered(client), inside, _ignore, _ignore)
        except (OSError, EOFError, SandboxError):
            inside.reset()
        finally:
            inside.close()
            client.close()

    try:
        server = await asyncio.start_server(serve, LOOPBACK, port.host)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AlreadyExistsError(
                f"network.ports: port {port.host} of this machine is taken: choose another, or 0",
                op="open",
            ) from None
        raise ResourceExhaustedError(
            f"network.ports: cannot listen on port {port.host}: {error.strerror}", op="open"
        ) from None
    return PublishedPort(port.inside, server.sockets[0].getsockname()[1], server)


def _ignore(_: int) -> None:
    return None
