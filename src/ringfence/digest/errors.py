"""Every error about digests. They are ValueErrors, since what was given is wrong.

DigestError
├── DigestInvalidFormat     not a digest at all
├── DigestInvalidLength     a known algorithm with an encoded part of another length
├── DigestUnsupported       an algorithm that is not available
├── DigestNotFound          no digest of the set begins so
├── DigestAmbiguous         more than one does
├── StateInvalid            bytes that are no state of that algorithm at that offset
├── StateUnusable           a right state that needs the prefix, or another machine, to go on from
└── VerificationError       content is not what was expected
    ├── SizeMismatch
    │   └── TrailingData    more bytes than expected
    ├── DigestMismatch
    └── Unverified          the end was not reached: nothing is known of the content
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar


class DigestError(ValueError):
    """The root. `text`: what every error of this kind begins with."""

    text: ClassVar[str] = "invalid digest"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(self.text if message is None else message)


class DigestInvalidFormat(DigestError):
    """Not a digest by the grammar."""

    text = "invalid checksum digest format"


class DigestInvalidLength(DigestError):
    """The encoded part of a known algorithm has another length (counted in UTF-8 bytes)."""

    text = "invalid checksum digest length"


class DigestUnsupported(DigestError):
    """The algorithm is not registered, or its implementation is not installed."""

    text = "unsupported digest algorithm"


class DigestNotFound(DigestError, LookupError):
    """No digest of the set begins with what was looked up."""

    text = "digest not found"


class DigestAmbiguous(DigestError, LookupError):
    """More than one digest of the set begins with what was looked up."""

    text = "ambiguous digest string"


class StateInvalid(DigestError):
    """The bytes are not a state of that algorithm at that offset."""

    text = "invalid hash state"


class StateUnusable(DigestError):
    """The state is right, but going on from it needs the content before it: pass `prefix`."""

    text = "the state needs the content before it: pass prefix"


class VerificationError(DigestError):
    """Content is not what was expected. Do not trust any byte of it."""

    text = "verification failed"


class SizeMismatch(VerificationError):
    """Fewer or more bytes than expected. Checked before the digest."""

    text = "size mismatch"


class TrailingData(SizeMismatch):
    """Bytes after the expected end."""

    text = "trailing data"


class DigestMismatch(VerificationError):
    """Another content than expected."""

    text = "digest mismatch"


class Unverified(VerificationError):
    """The end of the content was not reached."""

    text = "content was not read to its end"
