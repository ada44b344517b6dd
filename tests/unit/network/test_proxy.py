"""The proxy carries what a rule allows, to the address that was checked, and says what it did."""

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import UnsupportedError
from ringfence.network import Decision, EgressProxy, publish
from ringfence.network.authority import Authority
from ringfence.network.duplex import SocketDuplex
from ringfence.network.proxy import LOOKUPS_MOST
from ringfence.network.reach import resolve
from ringfence.spec.network import Network, Port

PUBLIC = "203.0.113.80"
NAMES = {
    "good.test": [PUBLIC],
    "inner.test": ["10.0.0.1"],
    "mixed.test": [PUBLIC, "127.0.0.1"],
    "metadata.test": ["169.254.169.254"],
}


@dataclass
class Outside:
    """An origin server, and what reached it."""

    seen: list[bytes] = field(default_factory=list)
    connections: list[tuple[str, int]] = field(default_factory=list)
    lookups: int = 0


@dataclass
class Place:
    """A proxy behind a local port, with an outside that answers every public address."""

    proxy: EgressProxy
    port: int
    outside: Outside
    decisions: list[Decision]
    authority: Authority

    async def ask(self, data: bytes, *, eof: bool = False) -> bytes:
        reader, writer = await _local(self.port)
        writer.write(data)
        if eof:
            writer.write_eof()
        try:
            return await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()


async def _local(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await _REAL_OPEN("127.0.0.1", port)


_REAL_OPEN = asyncio.open_connection
Make = Callable[..., Awaitable[Place]]


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    outside = Outside()
    origin_authority, authority = Authority("origin"), Authority("sandbox")
    servers: list[asyncio.Server] = []

    async def origin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()
            return
        size = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                size = int(line.split(b":")[1])
        if head.startswith(b"POST /no "):
            writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        if head.startswith(b"POST /continue "):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(size) if size else b""
        if b"chunked" in head.lower():
            try:
                body = await reader.readuntil(b"0\r\n")
                while not body.endswith(b"\r\n\r\n"):
                    body += await reader.readuntil(b"\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return
        outside.seen.append(head + body)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    async def dial(
        host: str, port: int, **tls: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        outside.connections.append((host, port))
        server = servers[1] if tls.get("ssl") else servers[0]
        return await _REAL_OPEN("127.0.0.1", server.sockets[0].getsockname()[1], **tls)

    async def lookup(host: str, port: int) -> Sequence[str]:
        outside.lookups += 1
        if host not in NAMES:
            raise OSError(f"no address for {host}")
        return NAMES[host]

    async def build(**settings: object) -> Place:
        rate = settings.pop("rate", None)
        trusted = settings.pop("trusted", True)
        looks_up = settings.pop("looks_up", True)
        decisions: list[Decision] = []
        network = Network.parse({"mode": "proxy", **settings})
        trust = ssl.create_default_context(cadata=origin_authority.pem.decode())
        proxy = EgressProxy(
            network,
            on_decision=decisions.append,
            lookup=lookup if looks_up else None,
            rate=rate,  # type: ignore[arg-type]
            authority=authority,
            trust=trust if trusted else None,
        )

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            stream = SocketDuplex(reader, writer)
            try:
                await proxy.serve(stream)
            except OSError:
                stream.reset()
            finally:
                stream.close()

        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0))
        return Place(proxy, servers[-1].sockets[0].getsockname()[1], outside, decisions, authority)

    servers.append(await asyncio.start_server(origin, "127.0.0.1", 0))
    secure = origin_authority.context("good.test")
    servers.append(await asyncio.start_server(origin, "127.0.0.1", 0, ssl=secure))
    monkeypatch.setattr(asyncio, "open_connection", dial)
    yield build
    for server in servers:
        server.close()


async def test_a_request_reaches_an_allowed_host_in_origin_form(make: Make) -> None:
    place = await make(allow=["good.test"])
    answer = await place.ask(
        b"GET http://good.test/a?b=c HTTP/1.1\r\nHost: good.test\r\nProxy-Connection: keep-alive\r\n"
        b"Proxy-Authorization: Basic bWluZQ==\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Kept: 2\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200 OK")
    [head] = place.outside.seen
    assert head.startswith(b"GET /a?b=c HTTP/1.1\r\nHost: good.test\r\n")
    assert b"X-Kept: 2" in head
    for gone in (b"X-Hop", b"Proxy-Connection", b"Proxy-Authorization"):
        assert gone not in head
    assert place.outside.connections == [(PUBLIC, 80)]
    assert place.decisions == [Decision("good.test", 80, True, "good.test:80")]
    assert place.proxy.received > 0


async def test_a_body_goes_along_and_what_follows_it_does_not(make: Make) -> None:
    place = await make(allow=["good.test"])
    await place.ask(
        b"POST http://good.test/ HTTP/1.1\r\nHost: good.test\r\nContent-Length: 3\r\n\r\nabc"
        b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n"
    )
    [seen] = place.outside.seen
    assert seen.endswith(b"\r\n\r\nabc")


async def test_connect_gives_a_tunnel(make: Make) -> None:
    place = await make(allow=["good.test:8443"])
    answer = await place.ask(
        b"CONNECT good.test:8443 HTTP/1.1\r\nHost: good.test:8443\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK")
    assert place.outside.connections == [(PUBLIC, 8443)]


@pytest.mark.parametrize(
    ("request_line", "host", "port"),
    [
        (b"GET http://169.254.169.254/x HTTP/1.1\r\nHost: 169.254.169.254", "169.254.169.254", 80),
        (b"GET http://2130706433:81/ HTTP/1.1", "2130706433", 81),
        (b"CONNECT [::1]:443 HTTP/1.1", "[::1]", 443),
        (b"CONNECT good.test HTTP/1.1", "good.test", 0),
        (b"GET http://name:password@good.test/ HTTP/1.1", "good.test", 0),
        (b"GET http://good.test/ HTTP/1.1\r\nHost: bad.test", "good.test", 80),
        (b"GET http://" + b"a" * 300 + b"/ HTTP/1.1", "a" * 255, 80),
    ],
)
async def test_a_target_that_is_no_name_of_a_host_is_a_decision_too(
    make: Make, request_line: bytes, host: str, port: int
) -> None:
    place = await make(allow=["good.test"])
    assert b"403 Forbidden" in await place.ask(request_line + b"\r\n\r\n")
    [decision] = place.decisions
    assert (decision.host, decision.port, decision.allowed) == (host, port, False)


@pytest.mark.parametrize(
    ("asked", "host"),
    [
        (b"\x01\x0a\x00\x00\x01", "10.0.0.1"),
        (b"\x04" + b"\0" * 15 + b"\1", "::1"),
        (b"\x03\x0810.0.0.1", "10.0.0.1"),
    ],
)
async def test_an_address_for_socks5_is_a_decision_too(make: Make, asked: bytes, host: str) -> None:
    place = await make(allow=["good.test"])
    await place.ask(b"\x05\x01\x00\x05\x01\x00" + asked + b"\x00\x50")
    [decision] = place.decisions
    assert (decision.host, decision.port, decision.allowed) == (host, 80, False)


async def test_an_allowed_host_that_does_not_answer_is_a_decision_too(make: Make) -> None:
    """The resolver was asked for its name, which may say something itself."""
    place = await make(allow=[".good.test"])
    answer = await place.ask(b"GET http://told.good.test/ HTTP/1.1\r\n\r\n")
    assert b"502 Bad Gateway" in answer
    assert place.decisions == [Decision("told.good.test", 80, True, ".good.test:80")]


def socks5(asked: bytes, *, command: int = 1, version: int = 5) -> bytes:
    """A greeting and a request of that protocol."""
    return b"\x05\x01\x00" + bytes((version, command, 0)) + asked


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (socks5(b"\x03\x08bad.test\x00\x50"), b"\x05\x02\x00\x01" + bytes(6)),
        (socks5(b"\x03\x09good.test\x00\x16"), b"\x05\x02\x00\x01" + bytes(6)),
        (socks5(b"\x01\x0a\x00\x00\x01\x00\x50"), b"\x05\x02\x00\x01" + bytes(6)),
        (socks5(b"\x03\x09lost.test\x00\x50"), b"\x05\x04\x00\x01" + bytes(6)),
        (socks5(b"\x03\x09good.test\x00\x50", command=2), b"\x05\x07\x00\x01" + bytes(6)),
        (socks5(b"\x03\x09good.test\x00\x50", command=3), b"\x05\x07\x00\x01" + bytes(6)),
        (socks5(b"\x03\x09good.test\x00\x50", version=4), b""),
        (socks5(b"\x02\x09good.test\x00\x50"), b""),
    ],
)
async def test_socks5_says_why_it_does_not_connect(
    make: Make, request_: bytes, answer: bytes
) -> None:
    """Refused, unreachable, a command that is not here; what is no request gets no answer."""
    place = await make(allow=["good.test", "lost.test"])
    assert await place.ask(request_ + b"GET / HTTP/1.1\r\n\r\n") == b"\x05\x00" + answer
    assert place.outside.connections == []


async def test_socks5_takes_only_clients_that_need_no_password(make: Make) -> None:
    place = await make(allow=["good.test"])
    assert await place.ask(b"\x05\x01\x02") == b"\x05\xff"


async def test_socks5_carries_names(make: Make) -> None:
    place = await make(allow=["good.test"])
    asked = b"\x05\x01\x00" + b"\x05\x01\x00\x03\x09good.test\x00\x50" + b"GET / HTTP/1.1\r\n\r\n"
    answer = await place.ask(asked)
    assert answer.startswith(b"\x05\x00\x05\x00\x00\x01")
    assert b"200 OK" in answer


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET http://bad.test/ HTTP/1.1\r\nHost: bad.test",
        b"GET http://good.test:8080/ HTTP/1.1\r\nHost: good.test:8080",
        b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1",
        b"GET http://2130706433/ HTTP/1.1\r\nHost: 2130706433",
        b"GET http://[::1]/ HTTP/1.1\r\nHost: [::1]",
        b"GET http://good.test@bad.test/ HTTP/1.1\r\nHost: bad.test",
        b"GET http://good.test/ HTTP/1.1\r\nHost: bad.test",
        b"GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\nHost: bad.test",
        b"GET http://inner.test/ HTTP/1.1\r\nHost: inner.test",
        b"GET http://mixed.test/ HTTP/1.1\r\nHost: mixed.test",
        b"GET http://metadata.test/ HTTP/1.1\r\nHost: metadata.test",
        b"CONNECT bad.test:443 HTTP/1.1",
        b"CONNECT good.test:22 HTTP/1.1",
        b"CONNECT 10.0.0.1:443 HTTP/1.1",
    ],
)
async def test_what_is_not_allowed_is_refused_and_never_dialled(
    make: Make, request_line: bytes
) -> None:
    allow = ["good.test", "inner.test", "mixed.test", "metadata.test"]
    place = await make(allow=allow)
    answer = await place.ask(request_line + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 "), answer
    assert place.outside.connections == []


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: good.test\r\n\r\n",
        b"GET ftp://good.test/ HTTP/1.1\r\n\r\n",
        b"GET http://good.test/ HTTP/2.0\r\n\r\n",
        b"GET http://good.test/ HTTP/1.1\r\nHost : good.test\r\n\r\n",
        b"GET http://good.test/ HTTP/1.1\r\n Host: good.test\r\n\r\n",
        b"G\x01T http://good.test/ HTTP/1.1\r\n\r\n",
        b"GET http://good.test/ HTTP/1.1\r\nX: " + b"a" * 70000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_answered_with_400(make: Make, data: bytes) -> None:
    place = await make(allow=["good.test"])
    answer = await place.ask(data)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert place.outside.seen == []


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 3\r\nContent-Length: 4",
        b"Content-Length: 3\r\nContent-Length: 3",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Content-Length: -1",
        b"Content-Length: 18446744073709551619",
    ],
)
async def test_an_unclear_length_is_not_forwarded(make: Make, headers: bytes) -> None:
    place = await make(allow=["good.test"])
    data = b"POST http://good.test/ HTTP/1.1\r\nHost: good.test\r\n" + headers + b"\r\n\r\nabc"
    assert (await place.ask(data)).startswith(b"HTTP/1.1 400 ")
    assert place.outside.seen == []


async def test_rules_change_while_it_runs(make: Make) -> None:
    place = await make(allow=[])
    request = b"GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\n\r\n"
    assert (await place.ask(request)).startswith(b"HTTP/1.1 403 ")
    place.proxy.allow(["good.test"])
    assert (await place.ask(request)).startswith(b"HTTP/1.1 200 ")
    place.proxy.allow([])
    assert (await place.ask(request)).startswith(b"HTTP/1.1 403 ")


async def test_a_name_is_looked_up_once_for_check_and_connection(make: Make) -> None:
    place = await make(allow=["good.test"])
    await place.ask(b"GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\n\r\n")
    assert place.outside.lookups == 1


async def test_of_several_addresses_the_first_that_answers_is_taken(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of the last is told where none does."""
    place = await make(allow=["good.test"])
    monkeypatch.setitem(NAMES, "good.test", ["203.0.113.1", "203.0.113.2", PUBLIC])
    plain = asyncio.open_connection

    async def dial(host: str, *rest: Any, **more: Any) -> Any:
        if host not in answering:
            raise ConnectionRefusedError(f"{host} refused")
        return await plain(host, *rest, **more)

    monkeypatch.setattr(asyncio, "open_connection", dial)
    request = b"GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\n\r\n"
    answering = ["203.0.113.2", PUBLIC]
    assert (await place.ask(request)).startswith(b"HTTP/1.1 200 ")
    assert place.outside.connections == [("203.0.113.2", 80)]
    answering = []
    assert f"{PUBLIC} refused".encode() in await place.ask(request)


async def test_a_host_without_an_address_is_a_bad_gateway(make: Make) -> None:
    place = await make(allow=["gone.test"])
    answer = await place.ask(b"GET http://gone.test/ HTTP/1.1\r\nHost: gone.test\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("secret", [(), ({"host": "good.test", "value": "x" * 99, "tls": False},)])
async def test_what_a_request_says_counts_as_sent(make: Make, secret: Any) -> None:
    """Its line and its headers carry data out as its body does; a secret is not the sandbox's."""
    place = await make(allow=["good.test"], secrets=secret)
    lengths = []
    for path, body in (("/", b""), (f"/{'x' * 100}", b""), ("/", b"y" * 10)):
        before = place.proxy.sent
        head = f"GET http://good.test{path} HTTP/1.1\r\nHost: good.test\r\nContent-Length: {len(body):03}"
        await place.ask(head.encode() + b"\r\n\r\n" + body)
        lengths.append(place.proxy.sent - before)
    assert lengths[1:] == [lengths[0] + 100, lengths[0] + 10]
    assert len("GET / HTTP/1.1") < lengths[0] < 99


async def test_a_secret_is_added_on_the_way_out_for_its_host_alone(make: Make) -> None:
    secrets = [{"host": "good.test", "value": "Bearer hidden", "tls": False}]
    place = await make(allow=["good.test"], secrets=secrets)
    await place.ask(
        b"GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\nAuthorization: mine\r\n\r\n"
    )
    [head] = place.outside.seen
    assert b"Authorization: Bearer hidden" in head
    assert b"mine" not in head


async def test_tls_that_names_another_host_inside_a_tunnel_is_cut_off(make: Make) -> None:
    place = await make(allow=["good.test"])
    hello = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="bad.test")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    with contextlib.suppress(ConnectionError):
        answer = await place.ask(b"CONNECT good.test:443 HTTP/1.1\r\n\r\n" + hello.read())
        assert answer == b"HTTP/1.1 200 Connection established\r\n\r\n"
    assert place.decisions[-1] == Decision("good.test", 443, False, "TLS inside names 'bad.test'")
    assert place.outside.seen == []


@pytest.mark.parametrize("port", [443, 8443])
async def test_a_tunnel_names_its_host_at_every_port(make: Make, port: int) -> None:
    place = await make(allow=[f"good.test:{port}"])
    asked = b"CONNECT good.test:%d HTTP/1.1\r\n\r\n" % port
    with contextlib.suppress(ConnectionError):
        await place.ask(asked + split_hello("bad.test", 1))
    assert place.decisions[-1] == Decision("good.test", port, False, "TLS inside names 'bad.test'")
    assert place.outside.seen == []


async def test_of_a_long_name_inside_a_tunnel_a_part_is_told(make: Make) -> None:
    """The decision is kept, in an audit log, too."""
    place = await make(allow=["good.test"])
    with contextlib.suppress(ConnectionError):
        asked = b"CONNECT good.test:443 HTTP/1.1\r\n\r\n"
        await place.ask(asked + hello_of(names_of(b"a" * 10_000)))
    assert place.decisions[-1].rule == f"TLS inside names '{'a' * 255}'"


@pytest.mark.parametrize("port", [22, 443])
async def test_a_server_may_speak_first(
    make: Make, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    """The client waits for it, and then says less than a hello has."""
    place = await make(allow=[f"good.test:{port}"])

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 good.test\r\n")
        writer.write(await reader.readexactly(1))
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    there = server.sockets[0].getsockname()[1]
    monkeypatch.setattr(asyncio, "open_connection", lambda *_, **__: _local(there))
    reader, writer = await _local(place.port)
    writer.write(b"CONNECT good.test:%d HTTP/1.1\r\n\r\n" % port)
    async with asyncio.timeout(20):
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readline() == b"220 good.test\r\n"
        writer.write(b"Q")
        assert await reader.read() == b"Q"
    writer.close()
    server.close()


async def test_a_rate_slows_what_is_over_it(make: Make) -> None:
    place = await make(allow=["good.test"], rate=100_000)
    body = b"x" * 100_000
    head = b"POST http://good.test/ HTTP/1.1\r\nHost: good.test\r\nContent-Length: 100000\r\n\r\n"
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await place.ask(head + body)
    assert loop.time() - begin >= 0.5


async def test_a_published_port_leads_inside_and_a_taken_one_is_named() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()

    inside = await asyncio.start_server(echo, "127.0.0.1", 0)

    async def connect(port: int) -> SocketDuplex:
        assert port == 8000
        return SocketDuplex(*await _local(inside.sockets[0].getsockname()[1]))

    published = await publish(Port.parse(8000), connect)
    reader, writer = await _local(published.host)
    writer.write(b"hello")
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 20) == b"hello"
    writer.close()
    from ringfence.errors import AlreadyExistsError

    with pytest.raises(AlreadyExistsError, match="taken"):
        await publish(Port.parse({"inside": 1, "host": published.host}), connect)
    await published.aclose()
    inside.close()


async def test_a_secret_goes_inside_tls_and_both_ends_are_verified(make: Make) -> None:
    secrets = [{"host": "good.test", "value": "Bearer hidden"}]
    place = await make(allow=["good.test"], secrets=secrets)
    reader, writer = await _local(place.port)
    writer.write(b"CONNECT good.test:443 HTTP/1.1\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
    trust = ssl.create_default_context(cadata=place.authority.pem.decode())
    trust.verify_flags |= ssl.VERIFY_X509_STRICT  # Python's default from 3.13 on
    await writer.start_tls(trust, server_hostname="good.test")
    writer.write(b"GET /x HTTP/1.1\r\nHost: good.test\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    [head] = place.outside.seen
    assert b"Authorization: Bearer hidden" in head


async def test_a_client_that_leaves_in_its_handshake_is_done_with(make: Make) -> None:
    place = await make(allow=["good.test"], secrets=[SECRET])
    tunnel = b"CONNECT good.test:443 HTTP/1.1\r\n\r\n"
    for begun in (b"", split_hello("good.test", 1)[:50], b"no TLS at all"):
        with contextlib.suppress(ConnectionError):
            assert (await place.ask(tunnel + begun, eof=True)).startswith(b"HTTP/1.1 200 ")
    assert place.outside.seen == []


def test_headers_inside_tls_need_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'ringfence\[tls\]'"):
        Authority("sandbox")


async def test_what_is_no_tls_after_the_handshake_ends_the_connection(make: Make) -> None:
    place = await make(allow=["good.test"], secrets=[SECRET])
    reader, writer = await _local(place.port)
    writer.write(b"CONNECT good.test:443 HTTP/1.1\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    connection = writer.get_extra_info("socket")
    trust = ssl.create_default_context(cadata=place.authority.pem.decode())
    await writer.start_tls(trust, server_hostname="good.test")
    os.write(connection.fileno(), b"GET / HTTP/1.1\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    assert place.outside.seen == []


@pytest.mark.parametrize("odd", [b"\n", b"\x0b", b"\t", b"\x00", b"\x7f", b"\r"])
async def test_a_target_is_printable_or_nothing_is_sent(make: Make, odd: bytes) -> None:
    """A lenient origin would take what follows for headers, or for a request of its own."""
    place = await make(allow=["good.test"])
    line = b"GET http://good.test/a" + odd + b"X: HTTP/1.1\r\nHost: good.test\r\n\r\n"
    assert (await place.ask(line)).startswith(b"HTTP/1.1 400 ")
    assert place.outside.seen == []


async def inside_tls(place: Place, request: bytes) -> bytes:
    """What is answered to a request inside TLS that the proxy ends."""
    reader, writer = await _local(place.port)
    writer.write(b"CONNECT good.test:443 HTTP/1.1\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
    trust = ssl.create_default_context(cadata=place.authority.pem.decode())
    await writer.start_tls(trust, server_hostname="good.test")
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


SECRET = {"host": "good.test", "value": "Bearer hidden"}
OTHER_SECRET = {"host": "other.test", "value": "Bearer other"}


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /mine\nContent-Length:\t999\n\n HTTP/1.1\r\nHost: good.test\r\n\r\n", b"400"),
        (b"TRACE / HTTP/1.1\r\nHost: good.test\r\n\r\n", b"403"),
        (b"trace / HTTP/1.1\r\nHost: good.test\r\n\r\n", b"403"),
        (b"GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\n\r\n", b"400"),
        (b"GET /x HTTP/1.1\r\nHost: bad.test\r\n\r\n", b"403"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
)
async def test_inside_tls_nothing_makes_an_origin_show_the_secret(
    make: Make, request_bytes: bytes, status: bytes
) -> None:
    """Neither as the body of a request of the sandbox's, nor as an echo; the answer says why."""
    place = await make(allow=["good.test"], secrets=[SECRET])
    assert (await inside_tls(place, request_bytes)).startswith(b"HTTP/1.1 " + status)
    assert place.outside.seen == []


async def test_a_secret_for_tls_is_never_sent_in_the_clear(make: Make) -> None:
    """Whatever the sandbox asks for: plain HTTP goes without it, at the port of TLS too."""
    place = await make(allow=["good.test"], secrets=[SECRET])
    await place.ask(b"GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\n\r\n")
    await place.ask(b"GET http://good.test:443/ HTTP/1.1\r\nHost: good.test:443\r\n\r\n")
    assert len(place.outside.seen) == 2
    assert b"hidden" not in b"".join(place.outside.seen)


async def test_only_a_tunnel_that_is_to_get_a_secret_is_opened(make: Make) -> None:
    """One to a host whose secret is for plain HTTP, or to another host, is nobody's to read."""
    secrets = [{"host": "good.test", "value": "Bearer hidden", "tls": False}, OTHER_SECRET]
    place = await make(allow=["good.test", "other.test"], secrets=secrets)
    request = b"GET / HTTP/1.1\r\nHost: good.test\r\n\r\n"
    answer = await place.ask(b"CONNECT good.test:443 HTTP/1.1\r\n\r\n" + request)
    assert answer.endswith(b"\r\n\r\nok")
    assert place.outside.seen == [request]
    assert place.proxy.sent == len(request)
    assert place.proxy.received == len(answer.partition(b"established\r\n\r\n")[2])


async def test_a_body_keeps_its_length_whatever_connection_names(make: Make) -> None:
    place = await make(allow=["good.test"])
    await place.ask(
        b"POST http://good.test/ HTTP/1.1\r\nHost: good.test\r\nContent-Length: 3\r\n"
        b"Connection: content-length, transfer-encoding\r\n\r\nabc"
    )
    [seen] = place.outside.seen
    assert b"Content-Length: 3\r\n" in seen


@pytest.mark.parametrize(
    "body",
    [
        b"3\r\nabcXX0\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX: 1\n\nGET / HTTP/1.1\r\n\r\n",
        b"0\r\n" + b"X: 1\r\n" * 20_000 + b"\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"10000000000000003\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\nContent-Length: 1\r\n\r\n",
        b"3\r\nabc\r\n0\r\ntransfer-encoding: identity\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX: 1\r\nHost: other.test\r\n\r\n",
        b"3\r\nabc\r\n0\r\nConnection: keep-alive\r\n\r\n",
    ],
)
async def test_a_body_that_can_be_read_in_two_ways_does_not_end(make: Make, body: bytes) -> None:
    """The origin gets no end of it, so it does nothing."""
    place = await make(allow=["good.test"])
    head = (
        b"POST http://good.test/ HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with contextlib.suppress(ConnectionError):
        assert b" 200 " not in await place.ask(head + body)
    assert place.outside.seen == []


@pytest.fixture
async def silent(monkeypatch: pytest.MonkeyPatch, make: Make) -> AsyncIterator[list[bytes]]:
    """An origin that only listens: what it got of each connection, once that has ended."""
    got: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            got.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    there = server.sockets[0].getsockname()[1]
    monkeypatch.setattr(asyncio, "open_connection", lambda *_, **__: _local(there))
    yield got
    server.close()


async def test_a_body_that_ends_early_ends_both_connections(
    make: Make, silent: list[bytes]
) -> None:
    place = await make(allow=["good.test"])
    head = b"POST http://good.test/ HTTP/1.1\r\nHost: good.test\r\nContent-Length: 10\r\n\r\n"
    with contextlib.suppress(ConnectionError):
        assert await place.ask(head + b"abc", eof=True) == b""
    async with asyncio.timeout(20):
        while not silent:
            await asyncio.sleep(0.01)
    assert silent[0].endswith(b"\r\n\r\nabc")


async def test_a_client_that_breaks_off_ends_a_request_that_is_not_answered(
    make: Make, silent: list[bytes]
) -> None:
    """An origin that never says anything would hold one of the sandbox's connections for ever."""
    place = await make(allow=["good.test"])
    reader, writer = await _local(place.port)
    writer.write(b"GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\n\r\n")
    async with asyncio.timeout(20):
        while place.proxy.sent == 0:
            await asyncio.sleep(0.01)
        SocketDuplex(reader, writer).reset()
        while not silent:
            await asyncio.sleep(0.01)


async def test_chunks_go_on_without_what_was_written_beside_their_sizes(make: Make) -> None:
    """All that goes on counts as sent: their sizes and what comes after the last one, too."""
    place = await make(allow=["good.test"])
    head = (
        b"POST http://good.test/ HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    body = b"003;a=\nb\r\nabc\r\n0;c\r\nX-Sum: 1\r\n\r\n"
    assert b" 200 " in await place.ask(head + body)
    [seen] = place.outside.seen
    assert seen.endswith(b"\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert place.proxy.sent == len(seen)


async def test_a_trailer_takes_no_secret_s_place(make: Make) -> None:
    """Some servers take trailers for headers, the last one of a name for the one that counts."""
    secret = {"host": "good.test", "header": "X-Key", "value": "value-of-it", "tls": False}
    place = await make(allow=["good.test"], secrets=[secret])
    head = (
        b"POST http://good.test/ HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with contextlib.suppress(ConnectionError):
        assert b" 200 " not in await place.ask(head + b"0\r\nx-key: mine\r\n\r\n")
    assert place.outside.seen == []


async def test_this_hosts_authorities_are_read_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the host time, and a sandbox can ask for connections as often as it likes."""
    place = await make(allow=["good.test"], secrets=[SECRET], trusted=False)
    read = []
    real = ssl.create_default_context

    def authorities() -> ssl.SSLContext:
        read.append(1)
        return real()

    monkeypatch.setattr(ssl, "create_default_context", authorities)
    for _ in range(3):
        answer = await place.ask(b"CONNECT good.test:443 HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 502 ")  # its origin's authority is not among them
    assert read == [1]


def test_certificates_are_kept_for_a_few_hosts_only() -> None:
    """A secret for a suffix makes one for each name that a sandbox thinks of."""
    authority = Authority("sandbox")
    assert authority.context("a.good.test") is authority.context("a.good.test")
    made = [weakref.ref(authority.context(f"{number}.good.test")) for number in range(100)]
    gc.collect()
    assert sum(context() is not None for context in made) <= 32


def hanging_resolver(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, list[str]]:
    """What has its lookups answered, and the names that it was asked for by then."""
    answers, asked = threading.Event(), list[str]()

    def hang(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        answers.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    return answers, asked


async def test_a_resolver_that_hangs_holds_up_nothing_else(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox keeps a few threads waiting, none of them one of those in which this process does
    all its other work."""
    place = await make(allow=[".good.test"], looks_up=False)
    answers, asked = hanging_resolver(monkeypatch)
    request = b"CONNECT %d.good.test:443 HTTP/1.1\r\n\r\n"
    asking = [asyncio.ensure_future(place.ask(request % number)) for number in range(60)]
    try:
        while len(asked) < LOOKUPS_MOST:
            await asyncio.sleep(0.01)
        assert await asyncio.wait_for(asyncio.to_thread(int, "7"), 20) == 7
        assert len(asked) == LOOKUPS_MOST
    finally:
        answers.set()
        await asyncio.gather(*asking)
    assert len(asked) == 60


async def test_a_lookup_that_nobody_waits_for_any_more_counts_until_it_ends(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread goes on: a sandbox that asks again after each time limit would have ever more."""
    place = await make(allow=[".good.test"], looks_up=False)
    answers, asked = hanging_resolver(monkeypatch)
    monkeypatch.setattr("ringfence.network.reach.CONNECT_SECONDS", 0.05)
    try:
        for number in range(LOOKUPS_MOST + 3):
            answer = await place.ask(b"CONNECT %d.good.test:443 HTTP/1.1\r\n\r\n" % number)
            assert answer.startswith(b"HTTP/1.1 502 ")
        assert len(asked) == LOOKUPS_MOST
    finally:
        answers.set()
    monkeypatch.setattr("ringfence.network.reach.CONNECT_SECONDS", 20.0)
    await place.ask(b"CONNECT last.good.test:443 HTTP/1.1\r\n\r\n")
    assert len(asked) == LOOKUPS_MOST + 1


@pytest.mark.parametrize("name", ["missing.good.test", "known.good.test", "single"])
async def test_a_name_with_a_dot_is_never_looked_up_below_a_search_domain(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The resolver would find another host than the rule names, where that domain answers for every
    name. What this host's own list of names has, and a name of one label, is found as always."""
    (tmp_path / "hosts").write_text("203.0.113.81\tOther Known.good.test # missing.good.test\n")
    monkeypatch.setattr("ringfence.network.reach._HOSTS", tmp_path / "hosts")

    def search(host: str, port: int, **_: object) -> list[object]:
        if host.endswith("."):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, port))]

    monkeypatch.setattr(socket, "getaddrinfo", search)
    if name == "missing.good.test":
        with pytest.raises(OSError, match="not known"):
            await resolve(name, 443)
    else:
        assert await resolve(name, 443) == [PUBLIC]


async def test_who_waits_no_longer_for_a_name_goes_on_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers, asked, finished = threading.Event(), threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        asked.set()
        answers.wait(20)
        finished.set()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    asking = asyncio.ensure_future(resolve("good.test", 443))
    await asyncio.to_thread(asked.wait, 20)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not finished.is_set()
    answers.set()
    assert await asyncio.to_thread(finished.wait, 20)


async def test_an_answer_comes_back_before_the_body_went_out(make: Make) -> None:
    """A client that waits for 100 Continue gets it; one whose body is not wanted hears so."""
    place = await make(allow=["good.test"])
    for path, first in ((b"/continue", b"HTTP/1.1 100 Continue"), (b"/no", b"HTTP/1.1 413 No")):
        reader, writer = await _local(place.port)
        writer.write(
            b"POST http://good.test" + path + b" HTTP/1.1\r\nHost: good.test\r\n"
            b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        assert answer.startswith(first)
        if path == b"/no":
            assert await asyncio.wait_for(reader.read(), 20) == b""
        if path == b"/continue":
            writer.write(b"abc")
            answer = await asyncio.wait_for(reader.read(), 20)
            assert answer.startswith(b"HTTP/1.1 200 OK")
        writer.close()
    assert place.outside.seen[0].endswith(b"\r\n\r\nabc")


def split_hello(name: str, pieces: int) -> bytes:
    """A ClientHello for `name`, in that many TLS records."""
    out = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = out.read()[5:]
    size = -(-len(hello) // pieces)
    parts = [hello[at : at + size] for at in range(0, len(hello), size)]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts)


@pytest.mark.parametrize("pieces", [2, 10])
async def test_a_hello_in_pieces_is_read_like_another(make: Make, pieces: int) -> None:
    place = await make(allow=["good.test"])
    with contextlib.suppress(ConnectionError):
        await place.ask(b"CONNECT good.test:443 HTTP/1.1\r\n\r\n" + split_hello("bad.test", pieces))
    assert place.decisions[-1] == Decision("good.test", 443, False, "TLS inside names 'bad.test'")
    assert place.outside.seen == []
    asked = b"CONNECT good.test:443 HTTP/1.1\r\n\r\n" + split_hello("good.test", pieces)
    await place.ask(asked, eof=True)
    assert place.decisions[-1].allowed


def sized(data: bytes, width: int = 2) -> bytes:
    """`data` with its length before it."""
    return len(data).to_bytes(width, "big") + data


def hello_of(*extensions: bytes) -> bytes:
    """A ClientHello with these extensions, in one record."""
    body = b"\x03\x03" + bytes(32) + sized(b"", 1) + sized(b"\x13\x01") + sized(b"\0", 1)
    return b"\x16\x03\x01" + sized(b"\x01" + sized(body + sized(b"".join(extensions)), 3))


def names_of(*names: bytes, kind: int = 0) -> bytes:
    """The extension that names a server, or several."""
    listed = b"".join(bytes((kind,)) + sized(name) for name in names)
    return b"\0\0" + sized(sized(listed))


async def test_a_hello_made_here_is_one(make: Make) -> None:
    place = await make(allow=["good.test"])
    tunnel = b"CONNECT good.test:443 HTTP/1.1\r\n\r\n"
    for hello in (hello_of(names_of(b"GOOD.test.")), hello_of(b"\0\x10" + sized(b"x"))):
        await place.ask(tunnel + hello + b"\r\n\r\n", eof=True)
        assert place.decisions[-1].allowed
        assert place.outside.seen[-1].startswith(hello)


GOOD = names_of(b"good.test")


@pytest.mark.parametrize(
    "hello",
    [
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x03\x01\xff\xff" + b"\x01" * 70_000,
        b"\x16\x03\x01\x00\x00" * 2000,
        hello_of(GOOD, names_of(b"bad.test")),
        hello_of(GOOD, GOOD),
        hello_of(names_of(b"good.test", b"bad.test")),
        hello_of(names_of(b"good.test", kind=1)),
        hello_of(names_of()),
        hello_of(GOOD[:-1] + b"\xff"),
        hello_of(b"\0\0" + sized(GOOD[4:] + b"x")),
        hello_of(b"\0\0\xff\xff" + GOOD[4:]),
        hello_of(GOOD)[: -len(GOOD) - 2] + sized(b"") + GOOD,
        hello_of(GOOD)[:-3],
    ],
)
async def test_a_hello_that_says_nothing_clear_is_cut_off(make: Make, hello: bytes) -> None:
    place = await make(allow=["good.test"])
    with contextlib.suppress(ConnectionError):
        await place.ask(b"CONNECT good.test:443 HTTP/1.1\r\n\r\n" + hello, eof=True)
    assert place.decisions[-1] == Decision("good.test", 443, False, "TLS inside names ''")


@pytest.mark.parametrize("begin", [b"\x16\x01\0\0\x01\0", b"\x16\0\0\0\xff\0"])
async def test_what_begins_as_tls_and_is_no_hello_passes(make: Make, begin: bytes) -> None:
    """A message that begins with its length, say; no server takes it for a hello either."""
    place = await make(allow=["good.test:27017"])
    message = begin + bytes(16) + b"\r\n\r\n"
    await place.ask(b"CONNECT good.test:27017 HTTP/1.1\r\n\r\n" + message)
    assert place.decisions[-1].allowed
    assert place.outside.seen == [message]
