"""The bytes that Go's `encoding.BinaryMarshaler` makes of an unfinished SHA-2 hash.

    magic (4) | chaining values (8 words, big-endian) | one block: pending bytes, then zeros |
    bytes hashed so far (u64, big-endian)

108 bytes for sha256, 204 for sha384 and sha512. Registries keep these beside unfinished uploads.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

from ringfence.digest.errors import StateInvalid

_MOST_BYTES = 1 << 61


class Layout(NamedTuple):
    """block: bytes of a block. whole: the state: magic, eight chaining values, block, length."""

    magic: bytes
    block: int
    whole: struct.Struct


LAYOUTS = {
    "sha256": Layout(b"sha\x03", 64, struct.Struct(">4s8I64sQ")),
    "sha384": Layout(b"sha\x04", 128, struct.Struct(">4s8Q128sQ")),
    "sha512": Layout(b"sha\x07", 128, struct.Struct(">4s8Q128sQ")),
}


class Progress(NamedTuple):
    """What a state says. pending: the bytes after the last whole block. length: bytes hashed."""

    chain: tuple[int, ...]
    pending: bytes
    length: int


def pack(algorithm: str, progress: Progress) -> bytes:
    """The state in Go's layout."""
    layout = LAYOUTS[algorithm]
    return layout.whole.pack(layout.magic, *progress.chain, progress.pending, progress.length)


def unpack(algorithm: str, state: bytes, *, any_tail: bool = False) -> Progress:
    """What `state` says, everything checked that can be. StateInvalid.

    any_tail: accept bytes other than zero after the pending ones, as Go does.
    """
    layout = LAYOUTS[algorithm]
    if state[:4] != layout.magic:
        raise StateInvalid(f"crypto/{algorithm}: invalid hash state identifier")
    if len(state) != layout.whole.size:
        raise StateInvalid(f"crypto/{algorithm}: invalid hash state size")
    _, *chain, block, length = layout.whole.unpack(state)
    if length >= _MOST_BYTES:
        raise StateInvalid(f"crypto/{algorithm}: a length that no content has")
    count = length % layout.block
    if not any_tail and block[count:].strip(b"\0"):
        raise StateInvalid(f"crypto/{algorithm}: bytes after the pending ones")
    return Progress(tuple(chain), block[:count], length)


ANSWERS = {
    "sha256": "5ab609d647de15cf51980e1ebc744ecf934a025d995a8e1e9c468abc31499c88",
    "sha384": "4f5083b80bfb4317e30b30919f4910899d48201ceac0cb35041eb6516f5a4cce",
    "sha512": "d1f9a0d95f55074f20a8827b543e7c12482b3f0334814015c0e3b86f0a3f87a8",
}
"""Known answers: the sha256 of the state after the 200 bytes 0..199."""


class _Hasher(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...

    def progress(self) -> Progress: ...


H = TypeVar("H", bound=_Hasher)


def answers_right(
    algorithm: str, new: Callable[[str], H], resume: Callable[[str, Progress], H]
) -> bool:
    """Whether hashers give the known answers, and go on from a state as from the content."""
    content = bytes(range(200))
    first = new(algorithm)
    first.update(content)
    state = pack(algorithm, first.progress())
    if hashlib.sha256(state).hexdigest() != ANSWERS[algorithm]:
        return False
    second = resume(algorithm, unpack(algorithm, state))
    second.update(content)
    wanted = hashlib.new(algorithm, content + content).digest()
    return second.digest() == wanted and first.digest() == hashlib.new(algorithm, content).digest()
