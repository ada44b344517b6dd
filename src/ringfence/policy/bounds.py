"""The lowest and highest numbers that the machine and the operator allow."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ringfence.errors import PolicyDeniedError
from ringfence.policy.ceiling import MEMORY_MINIMUM, Ceiling
from ringfence.policy.facts import Facts
from ringfence.spec import Limits, SandboxSpec, Ulimit, Ulimits
from ringfence.spec.limits import UNLIMITED

THE_CEILING = "the ceiling"
_PID_MAX = 4194304
_FRACTION = 0.01
_LOWEST = {"nofile": 4, "stack": 64 * 1024, "cpu": 1}
"""Below these not even `true` starts: it loads a library, has arguments, and needs a moment."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The range of one number of a spec. field: its dotted name. whose: "this machine" ..."""

    field: str
    whose: str
    high: float
    low: float = 0

    def broken(self, spec: SandboxSpec) -> float | None:
        """The number that a spec has in this field, of a ulimit the soft or the hard one, when it
        does not lie in the range."""
        value: Any = spec
        for part in self.field.split("."):
            value = getattr(value, part)
        numbers = (value.soft, value.hard) if isinstance(value, Ulimit) else (value,)
        for number in numbers:
            if number is not None and not self.low <= number <= self.high:
                return float(number) if number != int(number) else int(number)
        return None

    def outside(self, value: float) -> str:
        """That `value` is not in the range."""
        return outside(value, self.high, self.whose, self.low)


def outside(value: float, high: float, whose: str, low: float = 0) -> str:
    """That `value` is not in the range of somebody, in the words of every such error."""
    return f"{_plain(value)} is outside of {_plain(low)} to {_plain(high)}, the range of {whose}"


def check_ceiling(field: str, value: float, most: float | None, *, op: str) -> None:
    """PolicyDeniedError when `value` is above the ceiling's `most`; None is no ceiling."""
    if most is not None and value > most:
        raise PolicyDeniedError(
            f"{field}: {outside(value, most, THE_CEILING)}", op=op, context={"fields": [field]}
        )


def _plain(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """machine: what it can give. operator: what it may give."""

    machine: tuple[Bound, ...]
    operator: tuple[Bound, ...]


def ranges(facts: Facts, ceiling: Ceiling) -> Ranges:
    """The same object for the same numbers, so that more can be known by it."""
    ulimits = {**dict.fromkeys(_LOWEST, UNLIMITED), **facts.ulimits, "nofile": facts.nofile}
    highest = facts.memory, facts.cpus, tuple(ulimits.items())
    return _ranges(highest, ceiling.limits, (ceiling.lifetime, ceiling.idle_timeout))


@functools.lru_cache(maxsize=16)
def _ranges(
    highest: tuple[int, float, tuple[tuple[str, int], ...]],
    limits: Limits,
    lasting: tuple[float | None, float | None],
) -> Ranges:
    memory, cpus, ulimits = highest
    whose = "this machine"
    machine = [
        Bound("limits.memory", whose, memory, MEMORY_MINIMUM),
        Bound("limits.cpus", whose, cpus, _FRACTION),
        Bound("limits.pids", whose, _PID_MAX, 1),
    ]
    machine += [
        Bound(f"limits.ulimits.{name}", whose, most, _LOWEST.get(name, 0)) for name, most in ulimits
    ]
    operator = [
        Bound(f"limits.{name}", THE_CEILING, value)
        for name in Limits.model_fields
        if name not in ("ulimits", "cpuset") and (value := getattr(limits, name)) is not None
    ]
    operator += [
        Bound(f"limits.ulimits.{name}", THE_CEILING, pair.hard)
        for name in Ulimits.model_fields
        if (pair := getattr(limits.ulimits, name)) is not None
    ]
    operator += [
        Bound(name, THE_CEILING, value)
        for name, value in zip(("lifetime", "idle_timeout"), lasting, strict=True)
        if value is not None
    ]
    return Ranges(tuple(machine), tuple(operator))


def narrow(field: str, value: Any, most: Sequence[Bound], notes: list[str]) -> Any:
    """`value`, or the highest number that every bound of the field allows; notes what it lowered.

    No value at all means no limit, so a bound becomes the value, but only an operator's.
    """
    for bound in most:
        if bound.field != field:
            continue
        if value is None and bound.whose == THE_CEILING:
            value = bound.high
        elif value is not None and value > bound.high:
            notes.append(
                f"{field}: {value} of the profile is lowered to {bound.high} of {bound.whose}"
            )
            value = bound.high
    return value
