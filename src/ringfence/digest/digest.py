"""The digest itself."""

from __future__ import annotations

import re

from ringfence.digest import algorithm as algorithms
from ringfence.digest.algorithm import CANONICAL, Algorithm, check_encoded
from ringfence.digest.errors import DigestError, DigestInvalidFormat, DigestUnsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Buffer

    from ringfence.digest.digester import Verifier
    from ringfence.digest.hashes import Hash
    from ringfence.digest.streams import AsyncSource, Source

GRAMMAR = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_SPECIFIED = {"sha256": 32, "sha512": 64, "blake3": 32}
"""Algorithms that the OCI image specification registers, with the bytes of their raw hashes."""


class Digest(str):
    """``<algorithm>:<encoded>``; a plain string to `==`, `json` and everything else.

    Making one checks nothing, so that a digest from elsewhere can be held and shown; `parse` and
    `validate` check. A pydantic field of this type validates.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str, *, strict: bool = True) -> Digest:
        """The digest that `text` is. Raises as `validate` does; TypeError for what is no text."""
        if not isinstance(text, str):
            raise TypeError(f"a digest is a str, not {type(text).__name__}")
        made = cls(text)
        if not algorithms.valid.fullmatch(made):
            made.validate(strict=strict)
        return made

    def validate(self, *, strict: bool = True) -> None:
        """Raise DigestInvalidFormat, DigestInvalidLength or DigestUnsupported, or nothing.

        strict: as go-digest, only available algorithms pass. Otherwise as the OCI image
        specification says: one that is unknown passes when it is well-formed. It can be held and
        compared; nothing can be verified by it.
        """
        if algorithms.valid.fullmatch(self):
            return
        name, _, encoded = str(self).partition(":")
        if not encoded:
            raise DigestInvalidFormat
        algorithm = Algorithm(name)
        if algorithm.available:
            algorithm.validate(encoded)
        elif not GRAMMAR.fullmatch(self):
            raise DigestInvalidFormat
        elif strict:
            raise DigestUnsupported
        elif name in _SPECIFIED:
            check_encoded(encoded, _SPECIFIED[name])

    def is_wellformed(self) -> bool:
        """Whether the OCI image specification lets it pass: `validate(strict=False)`."""
        try:
            self.validate(strict=False)
        except DigestError:
            return False
        return True

    @property
    def algorithm(self) -> Algorithm:
        """What stands before the first colon. DigestInvalidFormat without one."""
        return Algorithm(self[: self._colon()])

    @property
    def encoded(self) -> str:
        """What stands after the first colon. DigestInvalidFormat without one."""
        return str(self[self._colon() + 1 :])

    def _colon(self) -> int:
        place = self.find(":")
        if place < 0:
            raise DigestInvalidFormat(f"no ':' separator in digest {str(self)!r}")
        return place

    def verifier(self) -> Verifier:
        """A sink that knows whether the bytes written to it are this digest's content.

        Raises DigestUnsupported when the algorithm is not available. The encoded part is not
        looked at: a digest that is wrong there is never verified.
        """
        from ringfence.digest.digester import Verifier

        return Verifier(self)

    @classmethod
    def from_bytes(cls, data: Buffer, algorithm: str = CANONICAL) -> Digest:
        """The digest of `data`. Raises DigestUnsupported."""
        hasher = Algorithm(algorithm).hash()
        hasher.update(data)
        return cls(f"{algorithm}:{hasher.digest().hex()}")

    @classmethod
    def from_str(cls, text: str, algorithm: str = CANONICAL) -> Digest:
        """The digest of `text` in UTF-8."""
        return cls.from_bytes(text.encode(), algorithm)

    @classmethod
    def from_reader(cls, reader: Source, algorithm: str = CANONICAL) -> Digest:
        """The digest of what is left to read of a binary stream. The stream's errors pass."""
        from ringfence.digest.streams import pour

        hasher = Algorithm(algorithm).hash()
        pour(reader, hasher.update)
        return cls.from_hash(algorithm, hasher)

    @classmethod
    async def from_async_reader(cls, reader: AsyncSource, algorithm: str = CANONICAL) -> Digest:
        """The same for an asynchronous stream: `await read(n)`, or an iterator of bytes.

        Cancellation ends the reading and leaves the stream where it is.
        """
        from ringfence.digest.streams import apour

        hasher = Algorithm(algorithm).hash()
        await apour(reader, hasher.update)
        return cls.from_hash(algorithm, hasher)

    @classmethod
    def from_encoded(cls, algorithm: str, encoded: str) -> Digest:
        """The two parts put together. Nothing is checked."""
        return cls(f"{algorithm}:{encoded}")

    @classmethod
    def from_raw(cls, algorithm: str, raw: bytes) -> Digest:
        """The digest with a raw hash. Nothing is checked."""
        return cls(f"{algorithm}:{bytes(raw).hex()}")

    @classmethod
    def from_hash(cls, algorithm: str, hasher: Hash) -> Digest:
        """The digest of what a hash object has seen so far. Nothing is checked."""
        return cls(f"{algorithm}:{hasher.digest().hex()}")

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(
            cls.parse,
            core_schema.str_schema(),
            serialization=core_schema.to_string_ser_schema(),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        return {**handler(schema), "pattern": f"^{GRAMMAR.pattern}$"}
