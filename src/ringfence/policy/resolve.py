"""From what is asked for to what is granted: fill in the profile, check, only ever narrow."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ringfence.errors import InvalidSpecError, PolicyDeniedError
from ringfence.policy.bounds import Bound, Ranges, narrow, ranges
from ringfence.policy.ceiling import NO_CEILING, Ceiling
from ringfence.policy.checks import denials
from ringfence.policy.facts import Facts
from ringfence.policy.profiles import PROFILES, Profile, for_runtime
from ringfence.policy.users import choose_user
from ringfence.spec import Limits, SandboxSpec, Security, Ulimit, Ulimits
from ringfence.spec.limits import cores


@dataclass(frozen=True, slots=True)
class Grant:
    """spec: the granted spec. notes: in words, every profile's number that had to be lowered."""

    spec: SandboxSpec
    notes: tuple[str, ...] = ()


def resolve(request: SandboxSpec, facts: Facts, *, ceiling: Ceiling | None = None) -> SandboxSpec:
    """The granted spec: every None that a profile speaks of is filled in, user and cwd are chosen.

    Raises InvalidSpecError for a number of the request that this machine cannot give (field, value
    and allowed range), PolicyDeniedError for what the profile or the ceiling forbids; each names
    everything that is wrong at once.
    """
    return grant(request, facts, ceiling=ceiling).spec


def grant(request: SandboxSpec, facts: Facts, *, ceiling: Ceiling | None = None) -> Grant:
    """As `resolve`, with the notes of what was lowered."""
    ceiling = ceiling or NO_CEILING
    request = _with_runtime(request, facts)
    profile = for_runtime(PROFILES[request.profile], request.security.runtime)
    denied = denials(request, profile, ceiling)
    numbers = ranges(facts, ceiling)
    _refuse(denied + _above(request, numbers.operator), PolicyDeniedError)
    _refuse(_above(request, numbers.machine) + _missing_cores(request, facts), InvalidSpecError)
    limits, notes = _limits(request.limits, profile.limits, numbers, ceiling.limits.cpuset)
    user = choose_user(request, facts)
    spec = request.model_copy(
        update={
            "user": user,
            "cwd": request.cwd or _cwd(request),
            "limits": limits,
            "security": _security(request.security, profile, ceiling),
            "lifetime": _lowest(request.lifetime, ceiling.lifetime),
            "idle_timeout": _lowest(
                request.idle_timeout or profile.idle_timeout, ceiling.idle_timeout
            ),
        }
    )
    _refuse(denials(spec, profile, ceiling), PolicyDeniedError)
    _refuse(_contradictions(request, spec), InvalidSpecError)
    return Grant(spec, notes)


def _with_runtime(request: SandboxSpec, facts: Facts) -> SandboxSpec:
    """The daemon's own runtime by name, where that is gVisor: all that depends on it reads it."""
    if request.security.runtime is not None or facts.runtime is None:
        return request
    security = request.security.model_copy(update={"runtime": facts.runtime})
    return request.model_copy(update={"security": security})


def check_limits(limits: Limits, facts: Facts, ceiling: Ceiling) -> None:
    """Raise as `resolve` does for numbers that the machine or the ceiling does not allow, for a
    sandbox that runs already."""
    request = SandboxSpec(limits=limits)
    numbers = ranges(facts, ceiling)
    _refuse(_above(request, numbers.operator), PolicyDeniedError)
    _refuse(_above(request, numbers.machine) + _missing_cores(request, facts), InvalidSpecError)


def _refuse(
    problems: list[tuple[str, str]], error: type[InvalidSpecError] | type[PolicyDeniedError]
) -> None:
    if problems:
        raise error(
            "; ".join(f"{field}: {text}" for field, text in problems),
            op="resolve",
            context={"fields": [field for field, _ in problems]},
        )


def _cwd(request: SandboxSpec) -> str:
    return "/" if request.repository is None else request.repository.mount_point


def _lowest(value: float | None, ceiling: float | None) -> float | None:
    known = [number for number in (value, ceiling) if number is not None]
    return min(known, default=None)


def _above(request: SandboxSpec, most: Sequence[Bound]) -> list[tuple[str, str]]:
    """The request's own numbers that are out of their bounds."""
    found = []
    for bound in most:
        value = bound.broken(request)
        if value is not None:
            found.append((bound.field, bound.outside(value)))
    return found


def _missing_cores(request: SandboxSpec, facts: Facts) -> list[tuple[str, str]]:
    cpuset = request.limits.cpuset
    last = max(1, math.ceil(facts.cpus)) - 1
    if cpuset is None or max(cores(cpuset)) <= last:
        return []
    return [("limits.cpuset", f"{cpuset!r} names core {max(cores(cpuset))}, there are 0 to {last}")]


@functools.lru_cache(maxsize=64)
def _limits(
    asked: Limits, profile: Limits, numbers: Ranges, cpuset: str | None
) -> tuple[Limits, tuple[str, ...]]:
    """The limits, and the notes of what was lowered; calculated once for sandboxes alike."""
    most = (*numbers.machine, *numbers.operator)
    notes: list[str] = []
    values: dict[str, Any] = {}
    for name in Limits.model_fields:
        if name in ("ulimits", "cpuset"):
            continue
        value = getattr(asked, name)
        filled = getattr(profile, name) if value is None else value
        values[name] = narrow(f"limits.{name}", filled, most, notes)
    values["cpuset"] = asked.cpuset or cpuset
    memory = values["memory"]
    for name in ("tmp", "shm", "run"):
        if getattr(asked, name) is None and values[name] > memory:
            notes.append(f"limits.{name}: {values[name]} of the profile is lowered to the memory")
            values[name] = memory
    values["ulimits"] = _ulimits(asked.ulimits, profile.ulimits, most, notes)
    return Limits(**values), tuple(notes)


def _ulimits(asked: Ulimits, profile: Ulimits, most: Sequence[Bound], notes: list[str]) -> Ulimits:
    values: dict[str, Ulimit] = {}
    for name in Ulimits.model_fields:
        pair = getattr(asked, name) or getattr(profile, name)
        hard = narrow(f"limits.ulimits.{name}", pair and pair.hard, most, notes)
        if hard is not None:
            values[name] = Ulimit(soft=min(pair.soft if pair else hard, hard), hard=hard)
    return Ulimits(**values)


def _security(asked: Security, profile: Profile, ceiling: Ceiling) -> Security:
    base = profile.security
    values: dict[str, Any] = {
        name: getattr(base, name)
        for name in ("read_only_root", "capabilities", "seccomp", "oom_score_adj", "tmp_exec")
        if getattr(asked, name) is None
    }
    if asked.tmp_exec is None and not ceiling.security.tmp_exec:
        values["tmp_exec"] = False
    for name in ("masked_paths", "read_only_paths"):
        own = getattr(asked, name) or ()
        values[name] = tuple(dict.fromkeys((*(getattr(base, name) or ()), *own)))
    return asked.model_copy(update=values)


def _contradictions(request: SandboxSpec, spec: SandboxSpec) -> list[tuple[str, str]]:
    found = []
    memory = spec.limits.memory or 0
    for name in ("tmp", "shm", "run"):
        value = getattr(request.limits, name)
        if value is not None and value > memory:
            found.append(
                (
                    f"limits.{name}",
                    f"{value} is more than limits.memory, {memory}: a tmpfs is memory",
                )
            )
    return found
