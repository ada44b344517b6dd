"""From a name to a connection: resolved once, every address checked, connected to that address."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ringfence.network.addresses import denied
from ringfence.network.duplex import SocketDuplex
from ringfence.network.rules import Refused

CONNECT_SECONDS = 20.0
_HOSTS = Path("/etc/hosts")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a name. OSError when it has none."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, as this host's resolver has them.

    It is asked in a thread of its own: one that waits for servers which do not answer, for longer
    than any caller does, holds up nothing else of this process.
    """
    look_up = partial(_look_up, host, port)
    thread = ThreadPoolExecutor(1, thread_name_prefix="ringfence-name")
    try:
        found = await asyncio.get_running_loop().run_in_executor(thread, look_up)
    finally:
        thread.shutdown(wait=False)
    return list(dict.fromkeys(found))


def _look_up(host: str, port: int) -> list[str]:
    """A name with a dot is looked up as it stands: the resolver would look for it below this host's
    search domains, too, where another host may have it."""
    whole = "." in host and not _is_listed(host)
    found = socket.getaddrinfo(f"{host}." if whole else host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _is_listed(host: str) -> bool:
    """Whether this host's own list has the name: there it is found only without a last dot."""
    try:
        lines = _HOSTS.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    return any(host in line.partition("#")[0].lower().split()[1:] for line in lines)


async def reach(
    host: str, port: int, lookup: Resolve, tls: ssl.SSLContext | None = None
) -> SocketDuplex:
    """Connect to a canonical name. One answer of the resolver is used for the check and for the
    connection, so that a name cannot mean one address now and another later; one denied address
    among them refuses all. tls: speak TLS to it and verify its name.

    Refused; OSError when nothing answers; TimeoutError after 20 s.
    """
    async with asyncio.timeout(CONNECT_SECONDS):
        addresses = [
            ipaddress.ip_address(text.partition("%")[0]) for text in await lookup(host, port)
        ]
        for address in addresses:
            reason = denied(address)
            if reason is not None:
                raise Refused(f"it resolves to an address that is {reason}")
        error: OSError = OSError(f"{host} has no address")
        for address in addresses:
            try:
                name = host if tls is not None else None
                streams = await asyncio.open_connection(
                    str(address), port, ssl=tls, server_hostname=name
                )
                return SocketDuplex(*streams)
            except OSError as failure:
                error = failure
        raise error
