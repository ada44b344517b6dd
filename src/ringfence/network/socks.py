"""SOCKS5 (RFC 1928), as far as a proxy needs it: no authentication, CONNECT, names."""

import ipaddress

from ringfence.network.duplex import Buffered
from ringfence.network.rules import Refused, canonical

VERSION = 5
_CONNECT = 1
_NAME = 3
_ADDRESSES = {1: 4, 4: 16}
"""The kinds that are none, with their length in bytes."""
_NO_AUTHENTICATION = 0

GRANTED = 0
NOT_ALLOWED = 2
UNREACHABLE = 4
_COMMAND = 7


async def read_request(stream: Buffered) -> tuple[str, int]:
    """Greet, and the host and port that are asked for. EOFError; ValueError for what is no SOCKS5;
    Refused for a target that is no name (a client that resolves names by itself)."""
    _, methods = await stream.exactly(2)
    if _NO_AUTHENTICATION not in await stream.exactly(methods):
        stream.inner.write(bytes((VERSION, 0xFF)))
        raise ValueError("no method of authentication in common")
    stream.inner.write(bytes((VERSION, _NO_AUTHENTICATION)))
    version, command, _, kind = await stream.exactly(4)
    if version != VERSION:
        raise ValueError("not SOCKS5")
    if command != _CONNECT:
        stream.inner.write(reply(_COMMAND))
        raise ValueError("only CONNECT is here")
    if kind in _ADDRESSES:
        address = ipaddress.ip_address(await stream.exactly(_ADDRESSES[kind]))
        port = int.from_bytes(await stream.exactly(2), "big")
        raise Refused(
            "an address instead of a name (let the proxy resolve: socks5h)", str(address), port
        )
    if kind != _NAME:
        raise ValueError("not a type of address")
    (size,) = await stream.exactly(1)
    host = (await stream.exactly(size)).decode("latin-1")
    port = int.from_bytes(await stream.exactly(2), "big")
    try:
        return canonical(host), port
    except Refused as error:
        raise error.of(host, port) from None


def reply(code: int) -> bytes:
    """The answer to a request, with no address of ours in it."""
    return bytes((VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0))
