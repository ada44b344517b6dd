"""What the OCI image specification calls a descriptor: type, digest and size of content."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ringfence.digest.digest import Digest
from ringfence.digest.errors import DigestInvalidFormat, DigestMismatch, SizeMismatch


@dataclass(frozen=True, slots=True)
class Descriptor:
    """size: bytes. Both size and digest must be right before content is trusted, size first."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Descriptor:
        """The descriptor that JSON describes, checked: fields, digest, size, embedded data.

        Raises DigestError of the kind that is wrong. An unknown algorithm passes when well-formed.
        """
        try:
            size = data["size"]
            made = cls(
                str(data["mediaType"]),
                Digest.parse(data["digest"], strict=False),
                size,
                {str(name): str(value) for name, value in (data.get("annotations") or {}).items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DigestInvalidFormat(f"not a descriptor: {error!r}") from None
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise SizeMismatch(f"the size of {made.digest} is {size!r}, not a number of bytes")
        if data.get("data") is not None:
            made.verify(_embedded(data["data"]))
        return made

    def verify(self, content: bytes) -> None:
        """Raise SizeMismatch, then DigestMismatch, unless `content` is what this describes."""
        if len(content) != self.size:
            raise SizeMismatch(f"{self.digest}: {len(content)} bytes instead of {self.size}")
        found = Digest.from_bytes(content, self.digest.algorithm)
        if found != self.digest:
            raise DigestMismatch(f"{self.digest}: the content is {found}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        data: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.annotations:
            data["annotations"] = dict(self.annotations)
        return data


def _embedded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise DigestInvalidFormat("the data of a descriptor is not base64") from None
