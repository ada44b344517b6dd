"""SHA-2 by the shared libcrypto's own functions, whose contexts can be read and written.

hashlib hides its context. The low-level functions (SHA256_Update and its like) are deprecated since
OpenSSL 3.0 and still there; the layout of their contexts is part of the library's ABI. Nothing
here is used before `check` has compared it with known answers.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from ringfence.digest import gostate
from ringfence.digest.gostate import Progress

if TYPE_CHECKING:
    from typing_extensions import Buffer

_NAMES = ("libcrypto.so.3", "libcrypto.so.1.1")
_SLICE = 256 * 1024
_RAW = ctypes.c_char * 64


class _Functions(NamedTuple):
    """One algorithm's functions. raw: bytes of a hash. low: bits of the lower half of a count.

    context: chain, bit count low and high, block, how much of the block, bytes of a hash. space:
    the type of memory that holds one.
    """

    init: Any
    update: Any
    final: Any
    raw: int
    low: int
    context: struct.Struct
    space: Any


def _load() -> Any:
    """The libcrypto that this process uses already, else the system's. None without one."""
    if not sys.platform.startswith("linux"):
        return None
    for name in _NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _functions(library: Any, prefix: str, bits: int, raw: int) -> _Functions | None:
    try:
        init = getattr(library, f"{prefix}_Init")
        update = getattr(library, f"{prefix}_Update")
        final = getattr(library, f"{prefix}_Final")
    except AttributeError:
        return None
    init.argtypes = [ctypes.c_void_p]
    update.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    final.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    context = struct.Struct("=8I2I64s2I" if bits == 32 else "=8Q2Q128s2I")
    return _Functions(init, update, final, raw, bits, context, ctypes.c_char * context.size)


class Hasher:
    """One hash in the making. Thread-safe: ctypes lets other threads run meanwhile."""

    __slots__ = ("_address", "_algorithm", "_context", "_functions", "_lock", "_update")

    def __init__(self, algorithm: str, context: Any = None) -> None:
        """context: one in memory that is this object's own; a fresh one when left out."""
        self._functions = functions = _KNOWN[algorithm]
        self._algorithm = algorithm
        self._context = functions.space() if context is None else context
        self._address = ctypes.addressof(self._context)
        self._update = functions.update
        self._lock = threading.Lock()
        if context is None:
            functions.init(self._address)

    def update(self, data: Buffer) -> None:
        """Feed bytes."""
        if type(data) is bytes:
            with self._lock:
                self._update(self._address, data, len(data))
            return
        view = memoryview(data)
        if not view.nbytes:
            return
        view = view.cast("B")
        if view.readonly:
            for start in range(0, len(view), _SLICE):
                self.update(bytes(view[start : start + _SLICE]))
        else:
            place = ctypes.addressof(ctypes.c_char.from_buffer(view))
            with self._lock:
                self._update(self._address, place, len(view))

    def digest(self) -> bytes:
        """The raw hash of all bytes so far; more may follow."""
        with self._lock:
            scratch = self._functions.space.from_buffer_copy(self._context)
        raw = _RAW()
        self._functions.final(raw, ctypes.addressof(scratch))
        return bytes(raw.raw[: self._functions.raw])

    def copy(self) -> Hasher:
        """An independent one that has seen the same bytes."""
        with self._lock:
            context = self._functions.space.from_buffer_copy(self._context)
        return Hasher(self._algorithm, context)

    def progress(self) -> Progress:
        """What the context says."""
        functions = self._functions
        with self._lock:
            raw = self._context.raw
        *chain, low, high, block, count, _ = functions.context.unpack(raw)
        return Progress(tuple(chain), block[:count], (high << functions.low | low) // 8)

    @classmethod
    def resume(cls, algorithm: str, progress: Progress) -> Hasher:
        """One that goes on from `progress`, which `gostate.unpack` has checked."""
        functions = _KNOWN[algorithm]
        bits, pending = progress.length * 8, progress.pending
        low, high = bits & ((1 << functions.low) - 1), bits >> functions.low
        raw = functions.context.pack(
            *progress.chain, low, high, pending, len(pending), functions.raw
        )
        return cls(algorithm, functions.space.from_buffer_copy(raw))


def check(algorithm: str) -> bool:
    """Whether contexts are what this module takes them for, seen by known answers."""
    return algorithm in _KNOWN and gostate.answers_right(algorithm, Hasher, Hasher.resume)


def _find() -> dict[str, _Functions]:
    library = _load()
    if library is None:
        return {}
    found = {
        "sha256": _functions(library, "SHA256", 32, 32),
        "sha384": _functions(library, "SHA384", 64, 48),
        "sha512": _functions(library, "SHA512", 64, 64),
    }
    return {name: functions for name, functions in found.items() if functions is not None}


_KNOWN = _find()
USABLE = frozenset(name for name in tuple(_KNOWN) if check(name))
"""The algorithms whose contexts were found right at import."""
