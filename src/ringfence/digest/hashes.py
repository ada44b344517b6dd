"""What hash objects are to the digests, whoever makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Hash(Protocol):
    """What hashlib's objects are."""

    def update(self, data: Buffer, /) -> None:
        """Feed bytes."""

    def digest(self) -> bytes:
        """The raw hash of all bytes so far."""

    def copy(self) -> Hash:
        """An independent one that has seen the same bytes."""
