"""Importing: lazily."""

import statistics
import subprocess
import sys
import time

from tests.bench.measure import Line, below


async def measure(rounds: int) -> list[Line]:
    rounds = rounds or 7
    bare = _seconds("pass", rounds)
    return [
        below("import ringfence", (_seconds("import ringfence", rounds) - bare) * 1e3, 150, "ms"),
        below(
            "import ringfence.digest",
            (_seconds("import ringfence.digest", rounds) - bare) * 1e3,
            20,
            "ms",
        ),
        Line(
            "import ringfence and open",
            (_seconds("import ringfence; ringfence.open", rounds) - bare) * 1e3,
            "ms",
        ),
    ]


def _seconds(code: str, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)
