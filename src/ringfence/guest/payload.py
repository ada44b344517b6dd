"""What the guest sent, read field by field: its bytes are hostile."""

import struct

from ringfence.errors import GuestError
from ringfence.guest.protocol import STAT, U8, U32, U64, Failure, Stat


def malformed(what: str) -> GuestError:
    """The error for bytes that no honest guest sends."""
    return GuestError(
        f"the guest broke the protocol: {what}. The sandbox cannot be trusted any more: delete it",
        op="guest",
    )


class Payload:
    """Reads the fields of one payload in order; GuestError as soon as something does not fit."""

    __slots__ = ("_at", "_view")

    def __init__(self, view: memoryview | bytes) -> None:
        self._view = memoryview(view)
        self._at = 0

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        """The next fields, as `layout` has them."""
        at = self._at
        if at + layout.size > len(self._view):
            raise malformed("a payload ends too early")
        self._at = at + layout.size
        return layout.unpack_from(self._view, at)

    def u8(self) -> int:
        """The next u8."""
        return self.take(U8)[0]

    def u32(self) -> int:
        """The next u32."""
        return self.take(U32)[0]

    def u64(self) -> int:
        """The next u64."""
        return self.take(U64)[0]

    def raw(self, size: int) -> bytes:
        """The next `size` bytes."""
        start = self._at
        stop = start + size
        if stop > len(self._view):
            raise malformed("a payload ends too early")
        self._at = stop
        return bytes(self._view[start:stop])

    def rest(self) -> bytes:
        """All that is left."""
        return self.raw(len(self._view) - self._at)

    def string(self) -> bytes:
        """The next `str`."""
        return self.raw(self.u32())

    def text(self) -> str:
        """The next `str` as text, bytes that are not UTF-8 replaced."""
        return self.string().decode("utf-8", "replace")

    def strings(self) -> list[bytes]:
        """The next `list`."""
        return [self.string() for _ in range(self.count(4))]

    def numbers(self) -> tuple[int, ...]:
        """A u32 count and that many u32."""
        return self.take(struct.Struct(f"<{self.count(4)}I"))

    def count(self, least: int) -> int:
        """A u32 count of items that take `least` bytes or more each."""
        count = self.u32()
        if count * least > len(self._view) - self._at:
            raise malformed("a count is larger than its payload")
        return count

    def stat(self) -> Stat:
        """The next `stat`."""
        return Stat._make(self.take(STAT))

    def failure(self) -> Failure:
        """The whole payload of FAIL."""
        failure = Failure(self.u32(), self.u8(), self.text()[:1000])
        self.end()
        return failure

    def end(self) -> None:
        """GuestError unless everything was read."""
        if self._at != len(self._view):
            raise malformed("a payload is longer than its fields")
