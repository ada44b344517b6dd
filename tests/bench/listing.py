"""Listing a week of sandboxes that have ended, beside a plain read of the same rows and beside
reading each record whole."""

import asyncio
import sqlite3
import tempfile
import time
from pathlib import Path

import ringfence
from ringfence.backends.base import Record
from ringfence.ledger import Ledger
from ringfence.ledger.entry import COLUMNS, Entry, to_row
from tests.bench.measure import Line, at_least, at_most, interleaved

_ENDED = 20_000


async def measure(rounds: int) -> list[Line]:
    rounds = rounds or 5
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-") as place:
        ledger = Ledger(Path(place) / "ledger.sqlite")
        await _fill(ledger)

        async def plain() -> None:
            await asyncio.to_thread(_read, ledger.path)

        async def listed() -> None:
            await ringfence.list_sandboxes(ended=True, ledger=ledger)

        async def chosen() -> None:
            await ringfence.list_sandboxes(ended=True, labels={"agent": "7"}, ledger=ledger)

        async def whole() -> None:
            await asyncio.to_thread(ledger.all)

        things = {"plain": plain, "listed": listed, "chosen": chosen, "whole": whole}
        took = await interleaved(things, rounds, warm=1)
    name = f"list of {_ENDED} ended sandboxes"
    rows = "a plain read of the rows"
    return [
        at_most(name, took["listed"], took["plain"], rows, 4),
        at_most(f"{name}, those of a label", took["chosen"], took["plain"], rows, 1.5),
        at_least(name, took["listed"], took["whole"], "validating each record", 2),
    ]


async def _fill(ledger: Ledger) -> None:
    """As many as end in a busy week, each with what a policy granted and texts of its own."""
    async with ringfence.open(backend="process", ledger=ledger) as sandbox:
        granted = sandbox.spec
    rows = []
    for number in range(_ENDED):
        labels = {"agent": str(number % 50), "task": str(number)}
        spec = granted.model_copy(update={"labels": labels, "env": {"TASK": str(number)}})
        now = time.time() - number
        record = Record(f"{number:032x}", "process", "", "n", "socket", spec, now)
        rows.append(to_row(Entry(record, ended=now, reason="deleted")))
    marks = ", ".join("?" * len(rows[0]))
    with sqlite3.connect(ledger.path) as connection:
        connection.executemany(f"INSERT INTO sandboxes ({COLUMNS}) VALUES ({marks})", rows)
    connection.close()


def _read(path: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT * FROM sandboxes ORDER BY created").fetchall()
    finally:
        connection.close()
