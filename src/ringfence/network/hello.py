"""The server name of a TLS ClientHello (RFC 8446, RFC 6066), to hold against what was asked for."""

from ringfence.network.duplex import Buffered

_HANDSHAKE = 0x16
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_RECORD_MOST = 16 * 1024


async def server_name(stream: Buffered) -> str | None:
    """The name in the ClientHello that comes next, left in place; None where there is none: no TLS,
    no such extension, or a hello in pieces. Never raises for what a client sends."""
    head = await stream.peek(5)
    if len(head) < 5 or head[0] != _HANDSHAKE:
        return None
    size = int.from_bytes(head[3:5], "big")
    if size > _RECORD_MOST:
        return None
    record = await stream.peek(5 + size)
    try:
        return _name(memoryview(record)[5:])
    except (IndexError, ValueError):
        return None


def _name(hello: memoryview) -> str | None:
    if hello[0] != _CLIENT_HELLO:
        return None
    at = 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + _u16(hello, at)
    at += 1 + hello[at]
    end = at + 2 + _u16(hello, at)
    at += 2
    while at + 4 <= end:
        kind, size = _u16(hello, at), _u16(hello, at + 2)
        if kind == _SERVER_NAME:
            length = _u16(hello, at + 7)
            return bytes(hello[at + 9 : at + 9 + length]).decode("ascii").lower()
        at += 4 + size
    return None


def _u16(data: memoryview, at: int) -> int:
    if at + 2 > len(data):
        raise IndexError
    return data[at] << 8 | data[at + 1]
