"""A limit on bytes a second, shared by all connections of one sandbox (a token bucket)."""

import asyncio

from ringfence.network.duplex import CHUNK_BYTES, Duplex

_BURST_SECONDS = 0.25
_SMALLEST_BURST = 16 * 1024


class Bucket:
    """Lets `rate` bytes a second through, after a burst of a quarter second's worth."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._size = max(_SMALLEST_BURST, rate * _BURST_SECONDS)
        self._level = float(self._size)
        self._at = asyncio.get_running_loop().time()

    async def take(self, size: int) -> None:
        """Wait until `size` more bytes are within the rate."""
        now = asyncio.get_running_loop().time()
        self._level = min(self._size, self._level + (now - self._at) * self._rate) - size
        self._at = now
        if self._level < 0:
            await asyncio.sleep(-self._level / self._rate)

    def slow(self, inner: Duplex) -> "SlowDuplex":
        """The same stream, within the rate in both directions together."""
        return SlowDuplex(inner, self)


class SlowDuplex:
    """A duplex whose bytes are counted against a bucket."""

    def __init__(self, inner: Duplex, bucket: Bucket) -> None:
        self._inner = inner
        self._bucket = bucket
        self._written = 0
        self.write_eof = inner.write_eof
        self.close = inner.close
        self.reset = inner.reset

    async def read(self, size: int = CHUNK_BYTES) -> bytes:
        """At most `size` bytes, paid for."""
        chunk = await self._inner.read(size)
        await self._bucket.take(len(chunk))
        return chunk

    def write(self, data: bytes) -> None:
        """Send; paid for at the next `drain`."""
        self._written += len(data)
        self._inner.write(data)

    async def drain(self) -> None:
        """Pay for what was written, and wait for the stream."""
        written, self._written = self._written, 0
        await self._bucket.take(written)
        await self._inner.drain()
