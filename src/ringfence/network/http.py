"""The little of HTTP/1.1 (RFC 9112) that a forward proxy must understand, read strictly."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from ringfence.network.duplex import Buffered, Count, Duplex
from ringfence.network.rules import Refused, canonical

HEAD_BYTES = 64 * 1024
_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")
_FRAMING = {b"content-length", b"transfer-encoding"}
_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization",
        b"proxy-authenticate", b"te", b"trailer", b"upgrade"}  # fmt: skip
_HEAD_ALONE = _FRAMING | _HOP | {b"host"}
"""What no trailer may be: a server that takes trailers for headers would read the request anew."""

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head. host: canonical. target: what the origin server gets."""

    method: bytes
    host: str
    port: int
    target: bytes
    headers: Headers

    @property
    def connect(self) -> bool:
        """Whether it asks for a tunnel."""
        return self.method == b"CONNECT"


async def read_request(stream: Buffered, origin: tuple[str, int] | None = None) -> Request:
    """The next request's head. EOFError; ValueError for what is no HTTP; Refused for its target.

    origin: host and port, for requests that name only a path (inside TLS).
    """
    head = await stream.until(b"\r\n\r\n", HEAD_BYTES)
    line, *rest = head[:-4].split(b"\r\n")
    parts = line.split(b" ")
    if len(parts) != 3 or parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise ValueError("not a request of HTTP/1.1")
    method, target, _ = parts
    if not _TOKEN.fullmatch(method):
        raise ValueError("not a method")
    if not _TARGET.fullmatch(target):
        raise ValueError("not a target")
    headers = [_header(text) for text in rest]
    if origin is not None:
        if not target.startswith(b"/"):
            raise ValueError("not a path")
        _same_host(headers, *origin)
        return Request(method, *origin, target, headers)
    if method == b"CONNECT":
        host, port = authority(target.decode("latin-1"), None)
        return Request(method, host, port, target, headers)
    url = urlsplit(target.decode("latin-1"))
    if url.scheme.lower() != "http" or not url.netloc:
        raise ValueError("a proxy takes http:// URLs and CONNECT")
    host, port = authority(url.netloc, 80)
    _same_host(headers, host, port)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    return Request(method, host, port, path.encode("latin-1"), headers)


def authority(text: str, default: int | None) -> tuple[str, int]:
    """Host and port of "host:port". Refused for user information, addresses and other names."""
    if "@" in text:
        raise Refused("user information before the host's name", text.rpartition("@")[2])
    host, colon, port = text.rpartition(":")
    if not colon or "]" in port:
        host, port = text, ""
    if not port:
        if default is None:
            raise Refused("no port", text)
        port = str(default)
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise Refused("not a port", text)
    try:
        return canonical(host), int(port)
    except Refused as error:
        raise error.of(host, int(port)) from None


def _header(text: bytes) -> tuple[bytes, bytes]:
    name, colon, value = text.partition(b":")
    if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError("not a header")
    return name, value.strip(b" \t")


def _same_host(headers: Headers, host: str, port: int) -> None:
    found = [value for name, value in headers if name.lower() == b"host"]
    if len(found) > 1:
        raise Refused("two Host headers", host, port)
    default = 80 if port == 80 else 443 if port == 443 else None
    if found and authority(found[0].decode("latin-1"), default) != (host, port):
        raise Refused("its Host header names another host", host, port)


def length(headers: Headers) -> int | None:
    """Bytes of the body; None when it is chunked. ValueError when the headers contradict."""
    codings = [value.lower() for name, value in headers if name.lower() == b"transfer-encoding"]
    sizes = [value for name, value in headers if name.lower() == b"content-length"]
    if codings:
        if codings != [b"chunked"] or sizes:
            raise ValueError("an unclear length")
        return None
    if not sizes:
        return 0
    text = sizes.pop()
    if sizes or not text.isdigit() or len(text) > 18:
        raise ValueError("an unclear length")
    return int(text)


def head_for_origin(request: Request, added: Headers) -> bytes:
    """The head as the origin server gets it: one request a connection, ours alone to end."""
    named = {
        token.strip().lower()
        for name, value in request.headers
        if name.lower() == b"connection"
        for token in value.split(b",")
    } - _FRAMING
    replaced = {name.lower() for name, _ in added}
    kept = [
        (name, value)
        for name, value in request.headers
        if name.lower() not in _HOP | named | replaced | {b"host"}
    ]
    host = request.host if request.port in (80, 443) else f"{request.host}:{request.port}"
    headers = [(b"Host", host.encode()), *kept, *added, (b"Connection", b"close")]
    lines = [b"%s %s HTTP/1.1" % (request.method, request.target)]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def copy_body(
    source: Buffered, target: Duplex, size: int | None, count: Count, added: Headers
) -> None:
    """Copy one body and not a byte more: what follows could be a request for somebody else.

    size: as `length` has it. added: headers whose place no trailer takes. EOFError; ValueError for
    what is no body, of which nothing that could be read in two ways went out.
    """
    if size is not None:
        await _copy(source, target, size, count)
        return
    while True:
        chunk = _chunk_size(await source.until(b"\r\n", 1024))
        if chunk == 0:
            refused = _HEAD_ALONE | {name.lower() for name, _ in added}
            _write(target, b"0\r\n" + await _trailers(source, refused), count)
            return
        _write(target, b"%x\r\n" % chunk, count)
        await _copy(source, target, chunk, count)
        if await source.exactly(2) != b"\r\n":
            raise ValueError("not a chunk")
        _write(target, b"\r\n", count)


def _write(target: Duplex, data: bytes, count: Count) -> None:
    """Sizes of chunks and trailers carry data out as what is between them does."""
    target.write(data)
    count(len(data))


def _chunk_size(line: bytes) -> int:
    size = line[:-2].partition(b";")[0].strip()
    if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", size):
        raise ValueError("not a chunk")
    return int(size, 16)


async def _trailers(source: Buffered, refused: set[bytes]) -> bytes:
    """What stands between the last chunk and the end, that included."""
    lines = b""
    while (line := await source.until(b"\r\n", HEAD_BYTES)) != b"\r\n":
        name, _ = _header(line[:-2])
        if name.lower() in refused:
            raise ValueError("not a trailer")
        lines += line
        if len(lines) > HEAD_BYTES:
            raise ValueError(f"no end within {HEAD_BYTES} bytes")
    return lines + b"\r\n"


async def _copy(source: Buffered, target: Duplex, size: int, count: Count) -> None:
    while size:
        chunk = await source.read(min(size, HEAD_BYTES))
        if not chunk:
            raise EOFError
        target.write(chunk)
        await target.drain()
        count(len(chunk))
        size -= len(chunk)


def answer(status: int, reason: str, detail: str) -> bytes:
    """A whole response of the proxy's own."""
    body = f"{detail}\n".encode()
    return (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nX-Ringfence-Proxy: {status}\r\nConnection: close\r\n\r\n"
    ).encode() + body
