"""Names of hash algorithms and the registry of their implementations."""

from __future__ import annotations

import hashlib
import re
import threading

from ringfence.digest.errors import (
    DigestInvalidFormat,
    DigestInvalidLength,
    DigestUnsupported,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, overload

    from ringfence.digest.digester import Digester
    from ringfence.digest.hashes import Hash


NAME = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*")


class Implementation:
    """new: makes a fresh hash object. size: of the raw hash, in bytes. module: what it needs."""

    __slots__ = ("module", "new", "size")

    def __init__(self, new: Callable[[], Hash], size: int, module: str | None = None) -> None:
        self.new = new
        self.size = size
        self.module = module

    @property
    def installed(self) -> bool:
        """Whether what it needs can be imported."""
        if self.module is None:
            return True
        from importlib.util import find_spec

        return find_spec(self.module) is not None


def _blake3() -> Hash:
    import blake3

    made: Any = blake3.blake3()  # its update returns itself
    hasher: Hash = made
    return hasher


_BUILT_IN = {
    "sha256": Implementation(hashlib.sha256, 32),
    "sha384": Implementation(hashlib.sha384, 48),
    "sha512": Implementation(hashlib.sha512, 64),
    "blake3": Implementation(_blake3, 32, "blake3"),
}

_registered: dict[str, Implementation] = {}
_usable: set[str] = set()
_changing = threading.Lock()
valid: re.Pattern[str] = re.compile("(?!)")
"""Matches wholly what is a digest of an available algorithm: the fast way of `validate`."""


class Algorithm(str):
    """The name of an algorithm; a plain string to everything else. Making one checks nothing.

    Registered at the start: sha256 (the canonical one) and sha512. `Algorithm.register("sha384")`
    and `Algorithm.register("blake3")` add those; with `new` and `size`, any other.
    """

    __slots__ = ()

    @classmethod
    def register(
        cls, name: str, *, new: Callable[[], Hash] | None = None, size: int | None = None
    ) -> bool:
        """Make an algorithm known to this process, for good. Thread-safe.

        new: makes a hash object; size: bytes of the raw hash. Both may be left out for those that
        are built in. False when the name is registered already. Raises ValueError for a name
        outside the grammar and for one that is not built in and comes without implementation.
        """
        with _changing:
            if name in _registered:
                return False
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"Algorithm {name} has a name which does not fit within the allowed grammar"
                )
            _registered[name] = _implementation(name, new, size)
            _learn(name)
            return True

    @classmethod
    def registered(cls) -> tuple[Algorithm, ...]:
        """Every registered algorithm, in order of registration."""
        return tuple(cls(name) for name in _registered)

    @property
    def available(self) -> bool:
        """Whether it is registered and its implementation is installed."""
        if str(self) in _usable:
            return True
        found = _registered.get(str(self))
        if found is None or not found.installed:
            return False
        with _changing:
            _learn(str(self))
        return True

    @property
    def size(self) -> int:
        """Bytes of the raw hash; 0 when it is not registered."""
        found = _registered.get(str(self))
        return 0 if found is None else found.size

    def hash(self) -> Hash:
        """A fresh hash object. Raises DigestUnsupported when there is none."""
        if not self.available:
            raise DigestUnsupported(
                f"{self} not available (make sure it is imported)"
                if self
                else "empty digest algorithm, validate before calling Algorithm.Hash()"
            )
        return _registered[str(self)].new()

    def digester(self) -> Digester:
        """A fresh digester. Raises DigestUnsupported when there is none."""
        from ringfence.digest.digester import Digester

        return Digester(self)

    if TYPE_CHECKING:

        @overload
        def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes: ...

        @overload
        def encode(self, encoding: bytes, errors: str = "strict") -> str: ...

    def encode(self, encoding: str | bytes = "utf-8", errors: str = "strict") -> bytes | str:
        """A raw hash, given as bytes, as digests write it: lower-case hex.

        Called as a string's `encode` it is that.
        """
        if isinstance(encoding, str):
            return super().encode(encoding, errors)
        return bytes(encoding).hex()

    def validate(self, encoded: str) -> None:
        """Raise unless `encoded` can be the encoded part of a digest of this algorithm.

        DigestUnsupported, then DigestInvalidLength (UTF-8 bytes), then DigestInvalidFormat.
        """
        if not self.available:
            raise DigestUnsupported
        check_encoded(encoded, self.size)


def check_encoded(encoded: str, size: int) -> None:
    """Raise unless `encoded` is the lower-case hex of `size` bytes: length first."""
    if len(encoded.encode("utf-8", "surrogatepass")) != 2 * size:
        raise DigestInvalidLength
    if not _HEX.fullmatch(encoded):
        raise DigestInvalidFormat


_HEX = re.compile("[a-f0-9]+")


def _implementation(name: str, new: Callable[[], Any] | None, size: int | None) -> Implementation:
    if new is not None and size is not None and size > 0:
        return Implementation(new, size)
    if new is not None or size is not None or name not in _BUILT_IN:
        raise ValueError(f"algorithm {name} is not built in: give both new and size")
    return _BUILT_IN[name]


def _learn(name: str) -> None:
    """Let `valid` match digests of `name`, when its implementation is there."""
    global valid  # noqa: PLW0603 - replaced as a whole, so that readers need no lock
    if _registered[name].installed:
        _usable.add(name)
        ways = (
            f"{re.escape(known)}:[a-f0-9]{{{2 * _registered[known].size}}}"
            for known in _registered
            if known in _usable
        )
        valid = re.compile("|".join(ways))


CANONICAL = Algorithm("sha256")
Algorithm.register("sha256")
Algorithm.register("sha512")
