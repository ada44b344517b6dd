"""The Engine's API over HTTP: requests, errors, raw streams.

aiohttp is used directly: an attached stream must become an asyncio transport after the Engine's
101, names go into URLs quoted, and every failure passes one table.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import IO, Any, TypeVar
from urllib.parse import quote, urlencode

import aiohttp

from ringfence.backends.docker import failures, versions
from ringfence.backends.docker.endpoint import Endpoint

SECONDS = 30.0
"""How long the Engine may take for an answer that needs no long work."""
_PIECE = 256 * 1024

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Engine:
    """One Docker Engine. Usable from one event loop; `close` when done."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._session: aiohttp.ClientSession | None = None
        self._version = ""
        self._asking: asyncio.Lock = asyncio.Lock()

    async def get(self, op: str, *path: str, **query: object) -> Any:
        """GET; the answer's JSON."""
        return await self.request(op, "GET", path, query)

    async def described(self, op: str, *path: str, by: str) -> dict[str, Any]:
        """GET; what an Engine says of one thing, whose description has `by`. Raises as `request`
        does, of other JSON, too."""
        found = await self.get(op, *path)
        if not isinstance(found, dict) or by not in found:
            raise failures.of_answer(op, self.endpoint, json.dumps(found).encode())
        return found

    async def post(self, op: str, *path: str, body: object = None, **query: object) -> Any:
        """POST with `body` as JSON; the answer's JSON, None without one."""
        return await self.request(op, "POST", path, query, body)

    async def head(self, op: str, header: str, *path: str, **query: object) -> str:
        """HEAD; that header of the answer, empty without it."""
        headers, _ = await self._answer(op, "HEAD", path, query)
        return headers.get(header, "")

    async def request(
        self,
        op: str,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, object],
        body: object = None,
        *,
        seconds: float = SECONDS,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """One request. op: names it in errors, as in `failures`. path: parts, quoted here.

        body: bytes go as a tar archive, anything else as JSON. headers: further ones. Raises what
        `failures` says, of an answer that is no JSON, too.
        Cancellation drops the connection; the Engine may carry the request out all the same.
        """
        _, data = await self._answer(
            op, method, path, query, body, seconds=seconds, headers=headers
        )
        if method != "GET" and not data:
            return None
        try:
            return json.loads(data)
        except ValueError:
            raise failures.of_answer(op, self.endpoint, data) from None

    async def _answer(
        self,
        op: str,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, object],
        body: object = None,
        *,
        seconds: float = SECONDS,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Mapping[str, str], bytes]:
        await self._negotiate()
        url = self._target(path, query)
        try:
            async with asyncio.timeout(seconds):
                status, told, data = await self._exchange(method, url, body, headers)
        except TimeoutError:
            raise failures.of_deadline(op, self.endpoint, seconds) from None
        except (aiohttp.ClientError, OSError) as error:
            raise failures.of_connection(op, self.endpoint, error) from None
        if status >= 300:
            raise failures.of_status(op, status, message_of(data))
        return told, data

    async def stream(
        self,
        op: str,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, object],
        body: IO[bytes] | None = None,
        *,
        seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """One request whose answer comes bit by bit; `body` goes as a tar archive.

        Raises as `request` does, in the midst of the answer too. Cancellation drops the
        connection, which ends what the Engine does for it.
        """
        await self._negotiate()
        url = self.endpoint.base + self._target(path, query)
        sent = {} if body is None else {"Content-Type": "application/x-tar"}
        sent |= headers or {}
        data = None if body is None else _pieces(body)
        try:
            async with (
                asyncio.timeout(seconds),
                self._client().request(
                    method, url, data=data, headers=sent, allow_redirects=False
                ) as response,
            ):
                if response.status >= 300:
                    raise failures.of_status(op, response.status, message_of(await response.read()))
                async for chunk in response.content.iter_any():
                    yield chunk
        except TimeoutError:
            raise failures.of_deadline(op, self.endpoint, seconds) from None
        except (aiohttp.ClientError, OSError) as error:
            raise failures.of_connection(op, self.endpoint, error) from None

    async def _exchange(
        self, method: str, url: str, body: object, further: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        headers = dict(further or {})
        data = None
        if isinstance(body, bytes):
            headers["Content-Type"] = "application/x-tar"
            data = body
        elif body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        client = self._client()
        async with client.request(
            method, self.endpoint.base + url, data=data, headers=headers, allow_redirects=False
        ) as response:
            return response.status, response.headers, await response.read()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            where = self.endpoint
            connector: aiohttp.BaseConnector
            if where.socket is not None:
                connector = aiohttp.UnixConnector(where.socket, limit=0)
            else:
                connector = aiohttp.TCPConnector(ssl=where.tls or False, limit=0)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(), trust_env=False
            )
        return self._session

    def _target(self, path: tuple[str, ...], query: Mapping[str, object]) -> str:
        text = "/".join(quote(part, safe=":@") for part in path)
        pairs = {name: _text(value) for name, value in query.items() if value is not None}
        return f"{self._version}/{text}" + (f"?{urlencode(pairs)}" if pairs else "")

    async def _negotiate(self) -> None:
        """Learn once which version of the API to speak."""
        if self._version:
            return
        async with self._asking:
            if self._version:
                return
            try:
                async with asyncio.timeout(SECONDS):
                    self._version = await self._pinged() or await self._asked()
            except TimeoutError:
                raise failures.of_deadline("version", self.endpoint, SECONDS) from None
            except (aiohttp.ClientError, OSError) as error:
                raise failures.of_connection("version", self.endpoint, error) from None

    async def _pinged(self) -> str:
        """What a ping tells, "" where that is not enough. For /version an Engine runs programs."""
        async with self._client().get(
            self.endpoint.base + "/_ping", allow_redirects=False
        ) as response:
            text = response.headers.get("Api-Version", "")
            versions.refuse_podman(response.headers.get("Libpod-Api-Version"), self.endpoint)
        return versions.of_ping(text) if response.status < 300 else ""

    async def _asked(self) -> str:
        status, _, data = await self._exchange("GET", "/version", None)
        if status >= 300:
            raise failures.of_status("version", status, message_of(data))
        return versions.of_answer(data, self.endpoint)

    async def hijack(
        self, op: str, path: tuple[str, ...], query: Mapping[str, object], factory: Callable[[], P]
    ) -> tuple[asyncio.Transport, P]:
        """A connection of its own on which the request to upgrade was written.

        The protocol reads the head of the answer and what follows. Raises as `request` does.
        """
        await self._negotiate()
        where = self.endpoint
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SECONDS):
                if where.socket is not None:
                    transport, protocol = await loop.create_unix_connection(factory, where.socket)
                else:
                    transport, protocol = await loop.create_connection(
                        factory, where.host, where.port, ssl=where.tls
                    )
        except TimeoutError:
            raise failures.of_deadline(op, where, SECONDS) from None
        except OSError as error:
            raise failures.of_connection(op, where, error) from None
        transport.write(
            f"POST {self._target(path, query)} HTTP/1.1\r\nHost: docker\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode()
        )
        return transport, protocol

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()


async def _pieces(body: IO[bytes]) -> AsyncGenerator[bytes, None]:
    """A file in pieces. It may be closed before its end, when the answer has come already."""

    def read() -> bytes:
        try:
            return body.read(_PIECE)
        except ValueError:
            return b""

    while piece := await asyncio.to_thread(read):
        yield piece


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return value if isinstance(value, str) else json.dumps(value)


def message_of(data: bytes) -> str:
    """What an Engine's refusal says, or the beginning of whatever came in its place."""
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data[:500].decode("utf-8", "replace")
