"""docs/coverage.md names tests that exist, and says something of every item."""

import ast
import functools
import re
from pathlib import Path

import pytest

from ringfence.testing import SandboxConformance

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "coverage.md"
ITEMS = {2: 7, 3: 10, 4: 9, 5: 7, 6: 9, 7: 7, 8: 6}
_ROW = re.compile(r"^\| (\d)\.(\d+) \|")
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?(?:::(\w+))?`")
_CHECK = re.compile(r"`SandboxConformance::(\w+)`")


@functools.cache
def names(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def test_every_test_that_the_page_names_exists() -> None:
    found = _TEST.findall(PAGE.read_text())
    assert len(found) > 100
    missing = []
    for file, *parts in found:
        path = ROOT / file
        for part in filter(None, parts):
            if not path.is_file() or part not in names(path):
                missing.append(f"{file}::{part}")
        if not path.is_file():
            missing.append(file)
    assert missing == []


def test_every_check_that_the_page_names_exists() -> None:
    found = set(_CHECK.findall(PAGE.read_text()))
    assert len(found) > 50
    assert {name for name in found if not hasattr(SandboxConformance, name)} == set()


@pytest.mark.parametrize(
    ("issue", "item"),
    [(issue, item) for issue, last in ITEMS.items() for item in range(1, last + 1)],
)
def test_the_page_has_a_row_for_every_item_with_a_test_or_a_reason(issue: int, item: int) -> None:
    rows = [line for line in PAGE.read_text().splitlines() if _ROW.match(line)]
    mine = [row for row in rows if row.startswith(f"| {issue}.{item} |")]
    assert mine
    assert all(_TEST.search(row) or _CHECK.search(row) or "not yet:" in row for row in mine)
