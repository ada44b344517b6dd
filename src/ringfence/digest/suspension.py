"""Hash objects that can be suspended to bytes, by whatever this interpreter has.

In this order: the shared libcrypto (`libcrypto`), the package `rehashes`, and for everything else a
plain hash object whose state is only how far it came: going on from that reads the content before
it again.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any, Protocol

from ringfence.digest import gostate
from ringfence.digest.algorithm import Algorithm
from ringfence.digest.errors import DigestUnsupported, StateInvalid, StateUnusable
from ringfence.digest.hashes import Hash
from ringfence.digest.streams import Source, pour

_PLACE = b"ringfence rehash\0"
"""What a state begins with that knows nothing but its offset (u64, big-endian)."""


class Suspendable(Hash, Protocol):
    """A hash object with a state in Go's layout."""

    def progress(self) -> gostate.Progress:
        """How far it came, with everything needed to go on."""

    def copy(self) -> Suspendable:
        """An independent one that has seen the same bytes."""


@functools.cache
def backend_of(algorithm: str) -> str:
    """Which backend suspends `algorithm`: "libcrypto", "rehashes" or "rehash"."""
    from ringfence.digest import libcrypto

    if algorithm in libcrypto.USABLE:
        return "libcrypto"
    if algorithm in gostate.LAYOUTS:
        from ringfence.digest import rehashing

        if algorithm in rehashing.USABLE:
            return "rehashes"
    return "rehash"


@functools.cache
def _hashers(backend: str) -> Any:
    """The class of a backend's hash objects; None for "rehash"."""
    if backend == "libcrypto":
        from ringfence.digest import libcrypto

        return libcrypto.Hasher
    if backend == "rehashes":
        from ringfence.digest import rehashing

        return rehashing.Hasher
    return None


def fresh(algorithm: str) -> Hash:
    """A hash object that has seen nothing. DigestUnsupported."""
    plain = Algorithm(algorithm).hash()
    made: Callable[[str], Hash] | None = _hashers(backend_of(algorithm))
    return plain if made is None else made(algorithm)


def state_of(algorithm: str, hasher: Hash, written: int) -> bytes:
    """Bytes to go on from: Go's layout, or without a suspending backend only the offset."""
    if backend_of(algorithm) == "rehash":
        return _PLACE + struct.pack(">Q", written)
    suspendable: Suspendable = hasher  # type: ignore[assignment]
    return gostate.pack(algorithm, suspendable.progress())


def resumed(
    algorithm: str, state: bytes, offset: int | None, prefix: Source | None, any_tail: bool
) -> tuple[Hash, int]:
    """A hash object that goes on from `state`, and how many bytes it has seen.

    StateInvalid; StateUnusable when `prefix` is needed and missing.
    """
    if not Algorithm(algorithm).available:
        raise DigestUnsupported(f"{algorithm} is not available")
    length, progress = _length(algorithm, state, any_tail)
    if offset is not None and offset != length:
        raise StateInvalid(f"the state is of offset {length}, not of {offset}")
    hashers = _hashers(backend_of(algorithm))
    if progress is not None and hashers is not None:
        return hashers.resume(algorithm, progress), length
    if prefix is None:
        raise StateUnusable
    hasher = fresh(algorithm)
    if pour(prefix, hasher.update, length) != length:
        raise StateInvalid(f"the prefix ends before offset {length}")
    return hasher, length


def _length(algorithm: str, state: bytes, any_tail: bool) -> tuple[int, gostate.Progress | None]:
    if state.startswith(_PLACE):
        if len(state) != len(_PLACE) + 8:
            raise StateInvalid
        return struct.unpack(">Q", state[len(_PLACE) :])[0], None
    if algorithm not in gostate.LAYOUTS:
        raise StateInvalid(f"{algorithm} has no such state")
    progress = gostate.unpack(algorithm, state, any_tail=any_tail)
    return progress.length, progress
