"""TLS over any duplex, ended by the proxy."""

import contextlib
import ssl

from ringfence.network.duplex import CHUNK_BYTES, Buffered


class TlsDuplex:
    """The server's side of a TLS connection over `inner`."""

    def __init__(self, inner: Buffered, context: ssl.SSLContext) -> None:
        self._inner = inner
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.reset = inner.inner.reset

    async def handshake(self) -> None:
        """Until both sides agree. ConnectionError when they do not."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                if not await self._more():
                    raise ConnectionResetError("TLS: the client went away") from None
            except ssl.SSLError as error:
                self._flush()
                raise ConnectionResetError(f"TLS: {error.reason}") from None
            else:
                self._flush()
                return

    async def read(self, size: int = CHUNK_BYTES) -> bytes:
        """At most `size` bytes of plain text, b"" at the end."""
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                self._flush()
                if not await self._more():
                    return b""
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as error:
                raise ConnectionResetError(f"TLS: {error.reason}") from None

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if data:
            self._tls.write(data)
            self._flush()

    async def drain(self) -> None:
        """Until little enough waits."""
        await self._inner.inner.drain()

    def write_eof(self) -> None:
        """Say that no more comes (close_notify)."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    def close(self) -> None:
        """End it."""
        self.write_eof()
        self._inner.inner.close()

    async def _more(self) -> bool:
        data = await self._inner.read()
        self._incoming.write(data)
        return bool(data)

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._inner.inner.write(self._outgoing.read())
