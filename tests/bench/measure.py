"""Interleaved timing: whatever the machine does meanwhile, it does to all that are compared."""

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Timed = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Line:
    """One measured fact. value: in `unit`. ratio: against `peer`. goal: what was wanted, in words.
    good: whether it is reached, None where there is no goal."""

    name: str
    value: float
    unit: str
    ratio: float | None = None
    peer: str = ""
    goal: str = ""
    good: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


async def interleaved(
    things: Mapping[str, Timed], rounds: int, *, warm: int = 2
) -> dict[str, float]:
    """The median seconds of each thing, all done once a round in turn."""
    times: dict[str, list[float]] = {name: [] for name in things}
    for number in range(warm + rounds):
        for name, thing in things.items():
            begin = time.perf_counter()
            await thing()
            if number >= warm:
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def at_least(
    name: str, ours: float, theirs: float, peer: str, goal: float, scale: float = 1e3
) -> Line:
    """A line on how many times faster we are than a peer; both in seconds."""
    ratio = theirs / ours
    return Line(name, ours * scale, "ms", ratio, peer, f"at least {goal}x", ratio >= goal)


def at_most(name: str, ours: float, theirs: float, peer: str, goal: float) -> Line:
    """A line on how many times the peer's time ours may be."""
    ratio = ours / theirs
    return Line(name, ours * 1e3, "ms", ratio, peer, f"at most {goal}x", ratio <= goal)


def below(name: str, value: float, goal: float, unit: str) -> Line:
    """A line on a value that should stay below its goal."""
    return Line(name, value, unit, None, "", f"below {goal} {unit}", value < goal)


def show(lines: list[Line]) -> None:
    width = max(len(line.name) for line in lines)
    for line in lines:
        ratio = "" if line.ratio is None else f"{line.ratio:8.2f}x {line.peer}"
        mark = {None: "", True: "  reached", False: "  MISSED"}[line.good] if line.goal else ""
        goal = f"  ({line.goal})" if line.goal else ""
        print(
            f"  {line.name:<{width}} {line.value:10.3f} {line.unit:<6}{ratio}{goal}{mark}",
            flush=True,
        )
