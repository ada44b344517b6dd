"""docs/limits.md says for every limit and backend whether it is enforced, and by which test."""

import re
from pathlib import Path

from ringfence.spec import Limits, Ulimits

ROOT = Path(__file__).resolve().parents[3]
TESTS = ROOT / "tests" / "integration" / "life"
CELL = re.compile(r"(?:enforced|refused) `(?:(\w+\.py)::)?(test_\w+)(?:\[(\w+)\])?`")


def table() -> dict[str, list[str]]:
    text = (ROOT / "docs" / "limits.md").read_text()
    part = text.partition("| limit | docker | process | gvisor | mock |\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in part.splitlines()]
    return {row[0].strip(" `"): row[1:] for row in rows[1:]}


def test_there_is_a_row_for_each_limit() -> None:
    wanted = {*Limits.model_fields} - {"ulimits"}
    assert set(table()) == wanted | {f"ulimits.{name}" for name in Ulimits.model_fields}


def test_each_cell_names_a_test_that_exists() -> None:
    for limit, cells in table().items():
        assert len(cells) == 4, limit
        for cell, backend in zip(cells, ("docker", "process", "gvisor", None), strict=True):
            found = CELL.fullmatch(cell)
            assert found is not None, (limit, cell)
            file, name, parameter = found.groups()
            assert f"def {name}(" in (TESTS / (file or "test_every_limit.py")).read_text(), cell
            assert parameter == backend, (limit, cell)
