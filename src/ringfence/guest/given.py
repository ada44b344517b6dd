"""What a caller gives, checked before any of it is sent: texts, whole numbers, bytes."""

import os
from pathlib import PurePath

from ringfence.errors import InvalidSpecError
from ringfence.spec.quantity import short


def text(value: str | bytes | PurePath, field: str) -> bytes:
    """`value` as bytes (UTF-8 with surrogateescape); InvalidSpecError for no text, and a NUL."""
    try:
        plain = os.fspath(value)
        data = plain if isinstance(plain, bytes) else plain.encode("utf-8", "surrogateescape")
    except (TypeError, UnicodeEncodeError):
        raise _wrong(field, value, "no text") from None
    if 0 in data:
        raise InvalidSpecError(
            f"{field} holds a NUL byte (got {plain[:60]!r}): remove it", context={"fields": [field]}
        )
    return data


def whole_number(value: int, field: str, most: int, least: int = 0) -> int:
    """`value`, when it is a whole number from `least` to `most`; else InvalidSpecError."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _wrong(field, value, f"not a whole number from {least} to {most}")
    return value


def content(value: bytes | bytearray | memoryview, field: str) -> bytes | memoryview:
    """The bytes of `value`, when it is of some kind of them; else InvalidSpecError."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, bytearray | memoryview):
        raise _wrong(field, type(value).__name__, "given: give bytes")
    view = memoryview(value)
    if not view.c_contiguous:
        raise _wrong(field, "a view", "not of bytes in a row: give a copy")
    return view.cast("B")


def _wrong(field: str, value: object, what: str) -> InvalidSpecError:
    return InvalidSpecError(f"{field}: {short(value)} is {what}", context={"fields": [field]})
