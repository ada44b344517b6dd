"""The egress proxy of one sandbox: HTTP, CONNECT and SOCKS5 on one port inside, judged here.

The sandbox has no interface but its loopback, so what the proxy refuses cannot be reached at all;
HTTP_PROXY and its like are a convenience, never the enforcement.
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ringfence.network import http, socks
from ringfence.network.authority import Authority
from ringfence.network.duplex import Buffered, Duplex, SocketDuplex, join, pump
from ringfence.network.hello import server_name
from ringfence.network.rate import Bucket
from ringfence.network.reach import Resolve, reach, resolve
from ringfence.network.rules import Refused, match
from ringfence.network.tls import TlsDuplex
from ringfence.spec.network import Network, Rule, Secret

_UNREACHABLE = (OSError, TimeoutError)
_SHOWN = 255
LOOKUPS_MOST = 4
"""Names of one sandbox that are looked up at a time: each takes a thread."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the proxy said to one request. rule: what allowed it, or why it was refused."""

    host: str
    port: int
    allowed: bool
    rule: str


class EgressProxy:
    """Judges and carries the connections of one sandbox.

    rules may be replaced at any time (`allow`): connections that are open go on. sent, received:
    bytes out of and into the sandbox. on_decision: called with each decision, before anything is
    sent anywhere. authority: signs for the hosts whose secrets go inside TLS. trust: how those
    hosts are verified, the system's way when left out.
    """

    def __init__(
        self,
        network: Network,
        *,
        on_decision: Callable[[Decision], None] | None = None,
        rate: int | None = None,
        lookup: Resolve | None = None,
        authority: Authority | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._authority = authority
        self._trust = trust
        self.rules: tuple[Rule, ...] = network.allow
        self._secrets: tuple[Secret, ...] = network.secrets
        self._on_decision = on_decision
        self._lookup = lookup
        self._looking_up = asyncio.Semaphore(LOOKUPS_MOST)
        self._bucket = None if rate is None else Bucket(rate)
        self.sent = 0
        self.received = 0

    def allow(self, rules: Sequence[Rule | str]) -> None:
        """Replace the rules. InvalidSpecError for what is none."""
        self.rules = tuple(Rule.parse(rule) for rule in rules)

    async def serve(self, inside: Duplex) -> None:
        """Serve one connection of the sandbox until it ends.

        What a client sends wrongly is answered, never raised; OSError when a side breaks off.
        """
        stream = Buffered(inside if self._bucket is None else self._bucket.slow(inside))
        first = await stream.peek(1)
        if not first:
            return
        try:
            if first[0] == socks.VERSION:
                await self._socks(stream)
            else:
                await self._http(stream)
        except EOFError:
            return
        except ValueError as error:
            if first[0] != socks.VERSION:
                inside.write(http.answer(400, "Bad Request", str(error)))

    async def _http(self, stream: Buffered) -> None:
        try:
            request = await http.read_request(stream)
            ended_here = request.connect and self._inside_tls(request.host)
            added = self._added(request, tls=False)
            trust = self._trusted() if ended_here else None
            outside = await self._reach(request.host, request.port, trust)
        except Refused as error:
            self._refuse(error)
            stream.inner.write(http.answer(403, "Forbidden", f"ringfence: refused: {error}"))
            return
        except _UNREACHABLE as error:
            stream.inner.write(http.answer(502, "Bad Gateway", f"ringfence: {error}"))
            return
        try:
            if request.connect:
                stream.inner.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            if ended_here:
                await self._terminate(stream, outside, request)
            elif request.connect:
                await self._tunnel(stream, outside, request.host, request.port)
            else:
                await self._forward(stream, outside, request, added)
        finally:
            outside.close()

    def _inside_tls(self, host: str) -> bool:
        return self._authority is not None and any(
            secret.tls and _belongs(secret, host) for secret in self._secrets
        )

    def _trusted(self) -> ssl.SSLContext:
        """How hosts are verified; this host's authorities are read once."""
        self._trust = self._trust or ssl.create_default_context()
        return self._trust

    async def _terminate(
        self, stream: Buffered, outside: SocketDuplex, request: http.Request
    ) -> None:
        """End the client's TLS here, so that its one request gets the secret."""
        assert self._authority is not None  # noqa: S101 - asked before
        inside = TlsDuplex(stream, self._authority.context(request.host))
        await inside.handshake()
        try:
            await self._forward_inside(Buffered(inside), outside, request)
        except Refused as error:
            self._refuse(error)
            inside.write(http.answer(403, "Forbidden", f"ringfence: refused: {error}"))
        except ValueError as error:
            inside.write(http.answer(400, "Bad Request", str(error)))
        inside.write_eof()

    async def _forward_inside(
        self, plain: Buffered, outside: SocketDuplex, tunnel: http.Request
    ) -> None:
        request = await http.read_request(plain, origin=(tunnel.host, tunnel.port))
        await self._forward(plain, outside, request, self._added(request, tls=True))

    def _added(self, request: http.Request, *, tls: bool) -> http.Headers:
        """The secrets that go with a request. Refused for one that would be answered with them."""
        added = [
            (secret.header.encode(), secret.value.get_secret_value().encode())
            for secret in self._secrets
            if secret.tls is tls and _belongs(secret, request.host)
        ]
        if added and request.method.upper() == b"TRACE":
            why = "TRACE answers with what was sent, the secret too"
            raise Refused(why, request.host, request.port)
        return added

    async def _forward(
        self, stream: Buffered, outside: SocketDuplex, request: http.Request, added: http.Headers
    ) -> None:
        size = http.length(request.headers)
        outside.write(http.head_for_origin(request, added))
        self._count_sent(len(http.head_for_origin(request, [])))  # a secret is not the sandbox's
        await _exchange(
            _send(partial(http.copy_body, stream, outside, size, self._count_sent, added), stream),
            pump(outside, stream.inner, self._count_received),
        )

    async def _socks(self, stream: Buffered) -> None:
        try:
            host, port = await socks.read_request(stream)
            outside = await self._reach(host, port)
        except Refused as error:
            self._refuse(error)
            stream.inner.write(socks.reply(socks.NOT_ALLOWED))
            return
        except _UNREACHABLE:
            stream.inner.write(socks.reply(socks.UNREACHABLE))
            return
        try:
            stream.inner.write(socks.reply(socks.GRANTED))
            await self._tunnel(stream, outside, host, port)
        finally:
            outside.close()

    async def _tunnel(self, stream: Buffered, outside: SocketDuplex, host: str, port: int) -> None:
        """Carry bytes; what the client sends only after its first ones were looked at."""
        first = self._check_hello(stream, host, port)
        await join(stream, outside, self._count_sent, self._count_received, first)

    async def _check_hello(self, stream: Buffered, host: str, port: int) -> None:
        """ConnectionResetError for TLS that names another host inside (domain fronting)."""
        name = await server_name(stream)
        if name is not None and name.rstrip(".") != host:
            why = f"TLS inside names {name[:_SHOWN]!r}"
            self._say(Decision(host, port, False, why))
            raise ConnectionResetError(why)

    async def _reach(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> SocketDuplex:
        """Refused; OSError when nothing answers, though a rule allowed it to be asked."""
        allowed = None
        try:
            rule = match(self.rules, host, port)
            allowed = Decision(host, port, True, rule)
            return await reach(host, port, self._addresses, tls)
        except Refused as error:
            allowed = None
            raise error.of(host, port) from None
        finally:
            if allowed is not None:
                self._say(allowed)

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        """A lookup that nobody waits for any more counts until its thread ends: none stops it."""
        await self._looking_up.acquire()
        asking = asyncio.ensure_future((self._lookup or resolve)(host, port))
        asking.add_done_callback(self._looked_up)
        await asyncio.wait((asking,))
        return asking.result()

    def _looked_up(self, asked: "asyncio.Future[Sequence[str]]") -> None:
        self._looking_up.release()
        if not asked.cancelled():
            asked.exception()  # nobody may wait for it any more

    def _refuse(self, error: Refused) -> None:
        self._say(Decision(error.host[:_SHOWN], error.port, False, str(error)))

    def _say(self, decision: Decision) -> None:
        if self._on_decision is not None:
            self._on_decision(decision)

    def _count_sent(self, size: int) -> None:
        self.sent += size

    def _count_received(self, size: int) -> None:
        self.received += size


def _belongs(secret: Secret, host: str) -> bool:
    if secret.host.startswith("."):
        return host.endswith(secret.host)
    return host == secret.host


async def _send(body: Callable[[], Coroutine[Any, Any, None]], client: Buffered) -> None:
    """Send a body, then drop what follows it. EOFError when the client breaks off: nobody waits for
    the answer, of which there may never be any."""
    await body()
    try:
        while await client.read():
            pass
    except OSError:
        raise EOFError("the client went away") from None


async def _exchange(body: Coroutine[Any, Any, None], answer: Coroutine[Any, Any, None]) -> None:
    """Send a body and bring the answer back, which may come before all of the body went out.

    ConnectionResetError when the body is none, or ends early; the origin then gets no end of it.
    """
    sending, receiving = asyncio.ensure_future(body), asyncio.ensure_future(answer)
    try:
        await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and isinstance(sending.exception(), EOFError | ValueError):
            raise ConnectionResetError(f"the request's body: {sending.exception()}")
        await receiving
    finally:
        sending.cancel()
        receiving.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)
