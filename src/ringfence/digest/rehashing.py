"""SHA-2 by the package `rehashes` (extra: none; used when it is installed), in Rust.

Its serialized form: chaining values, little-endian | count of whole blocks, little-endian |
pending count (1 byte) | pending bytes, then what an earlier block left there.
"""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from ringfence.digest import gostate
from ringfence.digest.gostate import Progress

if TYPE_CHECKING:
    from typing_extensions import Buffer

try:
    import rehashes as _package
except ImportError:
    _package = None


class _Form(NamedTuple):
    """kind: the package's class. word: as `gostate`. blocks: bytes of the block count."""

    kind: Any
    word: str
    block: int
    blocks: int

    @property
    def head(self) -> int:
        """Bytes of the chaining values."""
        return struct.calcsize(f"<8{self.word}")


_FORMS = (
    {}
    if _package is None
    else {
        "sha256": _Form(_package.PySha256, "I", 64, 8),
        "sha512": _Form(_package.PySha512, "Q", 128, 16),
    }
)


class Hasher:
    """One hash in the making. Thread-safe."""

    __slots__ = ("_form", "_inner", "_lock")

    def __init__(self, algorithm: str) -> None:
        self._form = _FORMS[algorithm]
        self._inner = self._form.kind()
        self._lock = threading.Lock()

    def update(self, data: Buffer) -> None:
        """Feed bytes."""
        with self._lock:
            self._inner.update(data if type(data) is bytes else bytes(data))

    def digest(self) -> bytes:
        """The raw hash of all bytes so far; more may follow."""
        return bytes.fromhex(self._again().finalize())

    def copy(self) -> Hasher:
        """An independent one that has seen the same bytes."""
        made = Hasher.__new__(Hasher)
        made._form, made._lock = self._form, threading.Lock()
        made._inner = self._again()
        return made

    def _again(self) -> Any:
        with self._lock:
            return self._form.kind.deserialize(self._inner.serialize())

    def progress(self) -> Progress:
        """What the serialized form says."""
        form = self._form
        with self._lock:
            raw = bytes(self._inner.serialize())
        after = form.head + form.blocks
        blocks, count = int.from_bytes(raw[form.head : after], "little"), raw[after]
        pending = raw[after + 1 : after + 1 + count]
        chain = struct.unpack_from(f"<8{form.word}", raw)
        return Progress(chain, pending, blocks * form.block + count)

    @classmethod
    def resume(cls, algorithm: str, progress: Progress) -> Hasher:
        """One that goes on from `progress`, which `gostate.unpack` has checked."""
        made = cls(algorithm)
        form = made._form
        raw = (
            struct.pack(f"<8{form.word}", *progress.chain)
            + (progress.length // form.block).to_bytes(form.blocks, "little")
            + bytes([len(progress.pending)])
            + progress.pending.ljust(form.block - 1, b"\0")
        )
        made._inner = form.kind.deserialize(raw)
        return made


def check(algorithm: str) -> bool:
    """Whether the package's states are what this module takes them for, by known answers."""
    try:
        return gostate.answers_right(algorithm, Hasher, Hasher.resume)
    except (TypeError, ValueError, LookupError, AttributeError, struct.error):
        return False


USABLE = frozenset(name for name in tuple(_FORMS) if check(name))
"""The algorithms whose states were found right at import."""
