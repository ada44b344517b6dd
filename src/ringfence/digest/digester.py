"""Sinks that bytes are written to and that know their digest."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from ringfence.digest import suspension
from ringfence.digest.algorithm import CANONICAL, Algorithm
from ringfence.digest.digest import Digest
from ringfence.digest.errors import DigestMismatch
from ringfence.digest.streams import apour, pour, size_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ringfence.digest.hashes import Hash
    from ringfence.digest.streams import AsyncSource, Source


class _Sink:
    """What digester and verifier share: writing."""

    __slots__ = ("_hasher", "_update", "_written", "algorithm")

    def __init__(self, algorithm: str, hasher: Hash, written: int = 0) -> None:
        self.algorithm = Algorithm(algorithm)
        self._hasher = hasher
        self._update = hasher.update
        self._written = written

    @property
    def written(self) -> int:
        """Bytes so far, those before a resume included."""
        return self._written

    def write(self, data: Buffer) -> int:
        """Take bytes; returns how many, which is all of them."""
        self._update(data)
        count = len(data) if type(data) is bytes else size_of(data)
        self._written += count
        return count

    def update(self, data: Buffer) -> None:
        """The same under hashlib's name."""
        self.write(data)

    def digest(self) -> Digest:
        """The digest of all bytes so far; more may follow."""
        return Digest.from_hash(self.algorithm, self._hasher)

    def read_from(self, reader: Source) -> int:
        """Write what is left of a binary stream; how many bytes that was."""
        return pour(reader, self.write)

    async def read_from_async(self, reader: AsyncSource) -> int:
        """Write what is left of an asynchronous stream; how many bytes that was.

        Cancellation leaves what was read so far written.
        """
        return await apour(reader, self.write)

    def writable(self) -> bool:
        """True, as io's streams say."""
        return True

    def __enter__(self) -> Self:
        return self


class Digester(_Sink):
    """A sink that can be suspended and resumed. One writer at a time; pickle is refused.

    Its life: made fresh or by `resume`; written to; asked for `digest()` or `state()` at any time.
    """

    __slots__ = ()

    def __init__(self, algorithm: str = CANONICAL) -> None:
        super().__init__(algorithm, suspension.fresh(algorithm))

    def state(self) -> bytes:
        """Bytes to resume from, in Go's `encoding.BinaryMarshaler` layout.

        Where the algorithm cannot be suspended here (`backend` is "rehash"), they only say how
        far it came. A state holds up to 127 bytes of the content: keep it as secret as that.
        """
        return suspension.state_of(self.algorithm, self._hasher, self._written)

    @classmethod
    def resume(
        cls,
        algorithm: str,
        state: bytes,
        *,
        offset: int | None = None,
        prefix: Source | None = None,
        any_tail: bool = False,
    ) -> Digester:
        """Go on from a state.

        offset: how many bytes the caller has; checked against the state's own. prefix: a stream
        of the content from its beginning, read only when the state alone does not suffice.
        any_tail: accept bytes other than zero in the unused part of the block, as Go does.

        Never resume from a state that somebody else could write: a forged one makes any content
        "verified". Raises DigestUnsupported, StateInvalid, StateUnusable.
        """
        hasher, length = suspension.resumed(algorithm, bytes(state), offset, prefix, any_tail)
        made = cls.__new__(cls)
        _Sink.__init__(made, algorithm, hasher, length)
        return made

    @property
    def backend(self) -> str:
        """What suspends it: "libcrypto", "rehashes" or "rehash"."""
        return suspension.backend_of(self.algorithm)

    def copy(self) -> Digester:
        """An independent one that has seen the same bytes."""
        made = Digester.__new__(Digester)
        _Sink.__init__(made, self.algorithm, self._hasher.copy(), self._written)
        return made

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        return None

    def __reduce__(self) -> str:
        raise TypeError("a digester is not pickled: use state() and resume()")


class Verifier(_Sink):
    """A sink with an expectation: `verified()` says whether the bytes so far are the content.

    As a context manager it raises DigestMismatch at the end unless they are.
    """

    __slots__ = ("target",)

    def __init__(self, target: str) -> None:
        self.target = Digest(target)
        name = self.target.algorithm
        super().__init__(name, name.hash())

    def verified(self) -> bool:
        """Whether the bytes so far have exactly the digest expected. More may follow."""
        return self.digest() == self.target

    def check(self) -> None:
        """Raise DigestMismatch unless `verified()`."""
        found = self.digest()
        if found != self.target:
            raise DigestMismatch(f"{self.target}: the content is {found}")

    def copy(self) -> Verifier:
        """An independent one that has seen the same bytes."""
        made = Verifier.__new__(Verifier)
        made.target = self.target
        _Sink.__init__(made, self.algorithm, self._hasher.copy(), self._written)
        return made

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None:
            self.check()
