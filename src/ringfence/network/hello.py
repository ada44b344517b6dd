"""The server name of a TLS ClientHello (RFC 8446, RFC 6066), to hold against what was asked for."""

from ringfence.network.duplex import Buffered

_HANDSHAKE = 0x16
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_HOST_NAME = 0
_RECORD_MOST = 16 * 1024
_RECORDS_MOST = 16

UNCLEAR = ""
"""A name that no host has: of a hello that does not say clearly whom it is for."""


async def server_name(stream: Buffered) -> str | None:
    """The name in the ClientHello that comes next, left in place, in one record or in several.

    None where there is none: no TLS, no such extension. UNCLEAR for a hello that is broken, in too
    many pieces or names two. Never raises for what a client sends.
    """
    if await stream.peek(1) != bytes((_HANDSHAKE,)):
        return None
    hello = b""
    at = records = 0
    while len(hello) < 4 or len(hello) < 4 + int.from_bytes(hello[1:4], "big"):
        head = (await stream.peek(at + 5))[at:]
        if len(head) < 5 or head[0] != _HANDSHAKE:
            return None if at == 0 else UNCLEAR
        size = int.from_bytes(head[3:5], "big")
        records += 1
        if size > _RECORD_MOST or records > _RECORDS_MOST:
            return UNCLEAR
        if size and not hello:
            kind = (await stream.peek(at + 6))[at + 5 :]
            if kind and kind[0] != _CLIENT_HELLO:
                return None
        hello += (await stream.peek(at + 5 + size))[at + 5 :]
        at += 5 + size
    try:
        return _name(memoryview(hello))
    except (IndexError, ValueError):
        return UNCLEAR


def _name(hello: memoryview) -> str | None:
    hello = hello[: 4 + int.from_bytes(hello[1:4], "big")]
    at = 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + _u16(hello, at)
    at += 1 + hello[at]
    if at == len(hello):
        return None
    if at + 2 + _u16(hello, at) != len(hello):
        raise ValueError("it ends elsewhere")
    at += 2
    names = []
    while at < len(hello):
        kind, size = _u16(hello, at), _u16(hello, at + 2)
        if kind == _SERVER_NAME:
            names.append(_only_name(hello[at + 4 : at + 4 + size]))
        at += 4 + size
    if at != len(hello) or len(names) > 1:
        raise ValueError("not one name")
    return names[0] if names else None


def _only_name(extension: memoryview) -> str:
    length = _u16(extension, 3)
    if not _u16(extension, 0) == 3 + length == len(extension) - 2 or extension[2] != _HOST_NAME:
        raise ValueError("not one name")
    return bytes(extension[5 : 5 + length]).decode("ascii").lower()


def _u16(data: memoryview, at: int) -> int:
    if at + 2 > len(data):
        raise IndexError
    return data[at] << 8 | data[at + 1]
