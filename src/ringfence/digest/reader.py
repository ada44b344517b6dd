"""Readers that hand out verified content, or raise.

The last bytes are handed out only after size and digest were found right. A consumer that reads to
the end, or leaves the `with` block without an error, may trust what it got; before that, nothing.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ringfence.digest.digester import Verifier
from ringfence.digest.errors import SizeMismatch, TrailingData, Unverified
from ringfence.digest.streams import CHUNK

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ringfence.digest.streams import AsyncReader, Source


class _Expectation:
    """What has come and what must come. size: bytes, None when it is not known."""

    def __init__(self, digest: str, size: int | None) -> None:
        if size is not None and size < 0:
            raise SizeMismatch(f"the size of {digest} is negative")
        self.verifier = Verifier(digest)
        self.size = size
        self.verified = False
        self.failed: Exception | None = None

    def room(self, wanted: int) -> int:
        """How much to ask the source for: never more than one byte over the size."""
        if self.failed is not None:
            raise self.failed
        if self.size is None:
            return wanted
        return min(wanted, self.size - self.verifier.written)

    def take(self, data: bytes, wanted: int) -> bool:
        """Count bytes; whether they are the last ones, so that the end must be looked at."""
        if len(data) > wanted:
            target = self.verifier.target
            self.failed = TrailingData(f"{target}: {len(data)} bytes came, {wanted} were asked for")
            raise self.failed
        self.verifier.write(data)
        return self.size is not None and self.verifier.written == self.size

    def lost(self) -> None:
        """A read failed: what the source had handed out never reaches the consumer."""
        if self.failed is None:
            self.failed = Unverified(f"{self.verifier.target}: a read of its source failed")

    def end(self, more: bytes) -> None:
        """The expected end: `more` is what came after it. Raises unless all is right."""
        target, written = self.verifier.target, self.verifier.written
        try:
            if more:
                raise TrailingData(f"{target}: more than {self.size} bytes")
            if self.size is not None and written != self.size:
                raise SizeMismatch(f"{target}: {written} bytes instead of {self.size}")
            self.verifier.check()
        except ValueError as error:
            self.failed = error
            raise
        self.verified = True

    def leave(self) -> None:
        """The end of a `with` block."""
        if self.failed is not None:
            raise self.failed
        if not self.verified:
            raise Unverified(f"{self.verifier.target}: it was not read to its end")


class VerifyingReader(io.RawIOBase):
    """A binary stream over `source` that raises instead of ending when the content is wrong.

    size: bytes expected, None when it is not known; then only the digest is checked, at the end.
    Raises SizeMismatch, TrailingData, DigestMismatch; Unverified by `verify()` and at the end of
    a `with` block when the end was not reached. After an error, the source's own too, every read
    raises: start again. `close` closes the source.
    """

    def __init__(self, source: Source, digest: str, size: int | None = None) -> None:
        super().__init__()
        self._source = source
        self._expected = _Expectation(digest, size)

    @property
    def verified(self) -> bool:
        """Whether the end was reached and everything was right."""
        return self._expected.verified

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill a buffer; 0 only at the verified end."""
        with memoryview(buffer) as whole, whole.cast("B") as view:
            if len(view) == 0 or self._expected.verified:
                return 0
            data = self._next(self._expected.room(len(view)))
            view[: len(data)] = data
            return len(data)

    def readall(self) -> bytes:
        """Everything that is left, verified as a whole."""
        parts = []
        while data := self.read(CHUNK):
            parts.append(data)
        return b"".join(parts)

    def verify(self) -> None:
        """Read what is left and raise unless the content is right."""
        while self.read(CHUNK):
            pass
        self._expected.leave()

    def _next(self, wanted: int) -> bytes:
        try:
            data = _some(self._source.read(wanted)) if wanted else b""
            if not data:
                self._expected.end(_some(self._source.read(1)) if wanted == 0 else b"")
            elif self._expected.take(data, wanted):
                self._expected.end(_some(self._source.read(1)))
        except BaseException:
            self._expected.lost()
            raise
        return data

    def close(self) -> None:
        """Close this stream and the source."""
        if not self.closed:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
        super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()
        if kind is None:
            self._expected.leave()


class AsyncVerifyingReader:
    """The same over `await source.read(n)`; also an asynchronous iterator of chunks.

    A cancelled read loses what the source had handed out: every later one raises. Start again.
    """

    def __init__(self, source: AsyncReader, digest: str, size: int | None = None) -> None:
        self._source = source
        self._expected = _Expectation(digest, size)

    @property
    def verified(self) -> bool:
        """Whether the end was reached and everything was right."""
        return self._expected.verified

    async def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes (-1: all that is left); none only at the verified end."""
        if size < 0:
            return b"".join([chunk async for chunk in self])
        if size == 0 or self._expected.verified:
            return b""
        wanted = self._expected.room(size)
        try:
            data = await self._source.read(wanted) if wanted else b""
            if not data:
                self._expected.end(await self._source.read(1) if wanted == 0 else b"")
            elif self._expected.take(data, wanted):
                self._expected.end(await self._source.read(1))
        except BaseException:
            self._expected.lost()
            raise
        return data

    async def verify(self) -> None:
        """Read what is left and raise unless the content is right."""
        async for _ in self:
            pass
        self._expected.leave()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.read(CHUNK):
            yield data

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None:
            self._expected.leave()


def _some(data: bytes | None) -> bytes:
    if data is None:
        raise BlockingIOError("the stream is not blocking and has nothing now")
    return data
