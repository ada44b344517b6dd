"""Sizes and durations as people write them: 536870912 or "512MiB", 300 or "5m"."""

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from ringfence.errors import InvalidSpecError

_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "k": 2**10, "kib": 2**10, "kb": 10**3,
    "m": 2**20, "mib": 2**20, "mb": 10**6,
    "g": 2**30, "gib": 2**30, "gb": 10**9,
    "t": 2**40, "tib": 2**40, "tb": 10**12,
}  # fmt: skip
_TIME_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_MOST_DIGITS = 30
_LARGEST_SIZE = 2**62
_LONGEST_SECONDS = 10 * 365 * 86400.0
_SHORTEST_INTERVAL = 0.01


def parse_size(value: Any) -> int:
    """Bytes from a whole number or a text such as "512MiB"; "k", "m", "g" are binary, as in Docker.

    Raises ValueError for negative, zero, fractional bytes, unknown units and more than 2**62.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a size is a number of bytes or a text such as '512MiB'")
    number = _parse(value, _SIZE_UNITS, "size", "b, k, kb, kib, m, mb, mib, g, gb, gib, t, tb, tib")
    if not 0 < number <= _LARGEST_SIZE:
        raise ValueError(f"a size is above 0 and at most {_LARGEST_SIZE} bytes, not {short(value)}")
    if number != int(number):
        raise ValueError(f"{value!r} is not a whole number of bytes")
    return int(number)


def parse_duration(value: Any) -> float:
    """Seconds from a number or a text such as "5m", "300s", "250ms", "2h", "1d".

    Raises ValueError for negative, zero, NaN, unknown units and more than ten years.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a duration is a number of seconds or a text such as '5m'")
    number = _parse(value, _TIME_UNITS, "duration", "ms, s, m, h, d")
    if not 0 < number <= _LONGEST_SECONDS:
        raise ValueError(f"a duration is above 0 and at most ten years, not {short(value)}")
    return float(number)


def check_interval(value: float) -> None:
    """Raise InvalidSpecError unless `value` is seconds from a hundredth to ten years."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not known or not _SHORTEST_INTERVAL <= value <= _LONGEST_SECONDS:
        raise InvalidSpecError(
            f"interval: {value!r} is not {_SHORTEST_INTERVAL:g} to {_LONGEST_SECONDS:g} seconds",
            op="validate",
            context={"fields": ["interval"]},
        )


def short(value: object) -> str:
    """A value in a message: at most 80 characters of its repr."""
    try:
        text = repr(value)
    except ValueError:  # an int of thousands of digits
        return "that"
    return text if len(text) <= 80 else text[:77] + "..."


def _parse(value: float | str, units: dict[str, Any], kind: str, known: str) -> float:
    if isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value!r} is not a {kind}")
        return value
    match = _QUANTITY.fullmatch(value)
    if match is None:
        raise ValueError(f"{short(value)} is not a {kind}: write a number and a unit ({known})")
    if len(match[1]) > _MOST_DIGITS:
        raise ValueError(f"a {kind} has at most {_MOST_DIGITS} digits")
    unit = units.get(match[2].lower())
    if unit is None:
        raise ValueError(f"unknown unit {short(match[2])} in {short(value)}: known are {known}")
    number = float(match[1]) if "." in match[1] else int(match[1])
    return number * unit  # type: ignore[no-any-return]


def _size_or_zero(value: Any) -> int:
    return 0 if value == "0" or (type(value) is int and value == 0) else parse_size(value)


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value


NotTruth = BeforeValidator(_no_truth)
"""For numbers: True is none, though it is a 1."""

_NUMBER_OR_TEXT: dict[str, Any] = {"anyOf": [{"type": "number"}, {"type": "string"}]}
_QUANTITY_SCHEMA = WithJsonSchema(_NUMBER_OR_TEXT, mode="validation")

Size = Annotated[int, BeforeValidator(parse_size), _QUANTITY_SCHEMA]
"""Bytes; accepts what `parse_size` accepts."""

SizeOrZero = Annotated[int, BeforeValidator(_size_or_zero), _QUANTITY_SCHEMA]
"""Bytes, or 0."""

Duration = Annotated[float, BeforeValidator(parse_duration), _QUANTITY_SCHEMA]
"""Seconds; accepts what `parse_duration` accepts."""
