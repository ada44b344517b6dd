"""SHA-2 by the shared libcrypto's own functions, whose contexts can be read and written.

hashlib hides its context. The low-level functions (SHA256_Update and its like) are deprecated since
OpenSSL 3.0 and still there; the layout of their contexts is part of the library's ABI. Nothing
here is used before `check` has compared it with known answers.
"""

from __future__ import annotations

import ctypes
import hashlib
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


class _Functions(NamedTuple):
    """One algorithm's functions. word, block, raw: as `gostate` and in bytes."""

    init: Any
    update: Any
    final: Any
    word: str
    block: int
    raw: int

    @property
    def head(self) -> int:
        """Bytes of the chaining values, which the context begins with."""
        return struct.calcsize(f"=8{self.word}")

    @property
    def size(self) -> int:
        """Bytes of a context: chain, bit count low and high, block, two ints."""
        return self.head + struct.calcsize(f"=2{self.word}") + self.block + 8


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


def _functions(library: Any, prefix: str, word: str, block: int, raw: int) -> _Functions | None:
    try:
        init = getattr(library, f"{prefix}_Init")
        update = getattr(library, f"{prefix}_Update")
        final = getattr(library, f"{prefix}_Final")
    except AttributeError:
        return None
    init.argtypes = [ctypes.c_void_p]
    update.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    final.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    return _Functions(init, update, final, word, block, raw)


class Hasher:
    """One hash in the making. Thread-safe: ctypes lets other threads run meanwhile."""

    __slots__ = ("_address", "_algorithm", "_context", "_functions", "_lock", "_update")

    def __init__(self, algorithm: str) -> None:
        self._begin(algorithm)
        self._functions.init(self._address)

    def _begin(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._functions = functions = _KNOWN[algorithm]
        self._context = ctypes.create_string_buffer(functions.size)
        self._address = ctypes.addressof(self._context)
        self._update = functions.update
        self._lock = threading.Lock()

    def update(self, data: Buffer) -> None:
        """Feed bytes."""
        if type(data) is bytes:
            with self._lock:
                self._update(self._address, data, len(data))
            return
        view = memoryview(data)
        view = view if view.contiguous and not view.ndim else view.cast("B")
        if view.readonly:
            for start in range(0, len(view), _SLICE):
                self.update(bytes(view[start : start + _SLICE]))
        elif len(view):
            place = ctypes.addressof(ctypes.c_char.from_buffer(view))
            with self._lock:
                self._update(self._address, place, len(view))

    def digest(self) -> bytes:
        """The raw hash of all bytes so far; more may follow."""
        with self._lock:
            scratch = ctypes.create_string_buffer(self._context.raw, self._functions.size)
        raw = ctypes.create_string_buffer(64)
        self._functions.final(raw, ctypes.addressof(scratch))
        return raw.raw[: self._functions.raw]

    def copy(self) -> Hasher:
        """An independent one that has seen the same bytes."""
        made = Hasher.__new__(Hasher)
        made._begin(self._algorithm)
        with self._lock:
            ctypes.memmove(made._address, self._address, self._functions.size)
        return made

    def progress(self) -> Progress:
        """What the context says."""
        functions = self._functions
        with self._lock:
            raw = self._context.raw
        words = struct.unpack_from(f"=10{functions.word}", raw)
        width = functions.head
        bits = words[9] << width | words[8]
        (count,) = struct.unpack_from("=I", raw, functions.size - 8)
        start = functions.size - 8 - functions.block
        return Progress(words[:8], raw[start : start + count], bits // 8)

    @classmethod
    def resume(cls, algorithm: str, progress: Progress) -> Hasher:
        """One that goes on from `progress`, which `gostate.unpack` has checked."""
        made = cls.__new__(cls)
        made._begin(algorithm)
        functions = made._functions
        bits, width, count = progress.length * 8, functions.head, len(progress.pending)
        struct.pack_into(
            f"=10{functions.word}",
            made._context,
            0,
            *progress.chain,
            bits & ((1 << width) - 1),
            bits >> width,
        )
        start = functions.size - 8 - functions.block
        ctypes.memmove(made._address + start, progress.pending, count)
        struct.pack_into("=2I", made._context, functions.size - 8, count, functions.raw)
        return made


def check(algorithm: str) -> bool:
    """Whether contexts are what this module takes them for, seen by known answers."""
    if algorithm not in _KNOWN:
        return False
    content = bytes(range(200))
    first = Hasher(algorithm)
    first.update(content)
    state = gostate.pack(algorithm, first.progress())
    if hashlib.sha256(state).hexdigest() != gostate.ANSWERS[algorithm]:
        return False
    second = Hasher.resume(algorithm, gostate.unpack(algorithm, state))
    second.update(content)
    wanted = hashlib.new(algorithm, content + content).digest()
    return second.digest() == wanted and first.digest() == hashlib.new(algorithm, content).digest()


def _find() -> dict[str, _Functions]:
    library = _load()
    if library is None:
        return {}
    found = {
        "sha256": _functions(library, "SHA256", "I", 64, 32),
        "sha384": _functions(library, "SHA384", "Q", 128, 48),
        "sha512": _functions(library, "SHA512", "Q", 128, 64),
    }
    return {name: functions for name, functions in found.items() if functions is not None}


_KNOWN = _find()
USABLE = frozenset(name for name in tuple(_KNOWN) if check(name))
"""The algorithms whose contexts were found right at import."""
