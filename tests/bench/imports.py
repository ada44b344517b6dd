"""Importing: lazily. Processor time of the whole child, the lowest of all rounds."""

import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tests.bench.measure import Line, at_most, below

_BWRAP = ("bwrap", "--ro-bind", "/", "/", "--unshare-all", "--die-with-parent", "true")
_UNDERNEATH = "import asyncio, pydantic, typer\nclass A(pydantic.BaseModel):\n  a: int"
_COMMAND = {
    "--help": ("--help",),
    "ps": ("ps",),
    "run -- true": ("run", "--backend", "process", "--", "true"),
}


async def measure(rounds: int) -> list[Line]:
    statements = ("pass", _UNDERNEATH, "import ringfence", "import ringfence.digest",
                  "import ringfence; ringfence.open")  # fmt: skip
    things = {code: (sys.executable, "-c", code) for code in statements}
    things |= {
        name: (sys.executable, "-m", "ringfence", *words) for name, words in _COMMAND.items()
    }
    lowest = _lowest({**things, "bwrap": _BWRAP}, rounds or 7)
    bare = lowest["pass"]
    peer = "an interpreter with asyncio, pydantic and typer"
    return [
        below("import ringfence", (lowest["import ringfence"] - bare) * 1e3, 150, "ms"),
        below(
            "import ringfence.digest", (lowest["import ringfence.digest"] - bare) * 1e3, 20, "ms"
        ),
        at_most(
            "import ringfence and open",
            lowest["import ringfence; ringfence.open"],
            lowest[_UNDERNEATH],
            peer,
            2,
        ),
        at_most("ringfence --help", lowest["--help"], lowest[_UNDERNEATH], peer, 2),
        at_most("ringfence ps", lowest["ps"], lowest[_UNDERNEATH], peer, 2),
        at_most(
            "ringfence run -- true",
            lowest["run -- true"],
            lowest[_UNDERNEATH] + lowest["bwrap"],
            f"{peer}, and bwrap true",
            2.5,
        ),
    ]


def _lowest(things: Mapping[str, Sequence[str]], rounds: int) -> dict[str, float]:
    """The least seconds of processor time of each command, all run once a round in turn."""
    found = dict.fromkeys(things, float("inf"))
    for _ in range(rounds):
        for name, command in things.items():
            before = _used()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found[name] = min(found[name], _used() - before)
    return found


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
