"""`python -m tests.bench [TABLE ...] [--rounds N] [--into DIR]`: speed as ratios in one run.

Prints a table each, and writes bench.json and one picture a table into DIR. Single times mean
little on a machine that is shared; the ratios compare what was measured side by side.
"""

import argparse
import asyncio
import importlib
import json
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

from tests.bench.measure import Line, show
from tests.bench.picture import picture

TABLES = (
    "imports",
    "exec",
    "start",
    "output",
    "files",
    "usage",
    "life",
    "listing",
    "egress",
    "process",
    "pool",
    "workspace",
    "digest",
    "peers",
)


def parts(name: str, lines: list[Line]) -> dict[str, list[Line]]:
    """A table's lines by what stands before the colon of their names, each for a picture."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        title, colon, rest = line.name.partition(": ")
        key, label = (title, rest) if colon else (name, line.name)
        found.setdefault(key, []).append(replace(line, name=label))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}")
    parser.add_argument("--rounds", type=int, default=0, help="how often each thing is done")
    parser.add_argument("--into", type=Path, default=Path(".cache/bench"), metavar="DIR")
    options = parser.parse_args()
    wanted = options.tables or list(TABLES)
    unknown = sorted(set(wanted) - set(TABLES))
    if unknown:
        parser.error(f"no table {', '.join(unknown)}: there are {', '.join(TABLES)}")
    options.into.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Line]] = {}
    for name in wanted:
        print(f"\n{name}", flush=True)
        table = importlib.import_module(f"tests.bench.{name}")
        lines = asyncio.run(table.measure(options.rounds))
        show(lines)
        found[name] = lines
        for title, part in parts(name, lines).items():
            path = options.into / f"{title.replace(' ', '-')}.svg"
            path.write_text(picture(title, part))
    document = {
        "time": time.time(),
        "machine": f"{platform.release()} {platform.machine()}",
        "tables": {name: [line.to_dict() for line in lines] for name, lines in found.items()},
    }
    (options.into / "bench.json").write_text(json.dumps(document, indent=2))
    print(f"\nwritten to {options.into}/bench.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
