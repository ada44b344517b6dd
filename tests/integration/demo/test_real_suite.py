"""A real library's own tests give the same counts in the sandbox as outside."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import require_docker
from tests.images import DEBIAN

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]


def demo() -> ModuleType:
    path = Path(__file__).resolve().parents[3] / "scripts" / "demo.py"
    spec = importlib.util.spec_from_file_location("demo", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_the_counts_inside_equal_those_outside(state_directory: Path) -> None:
    require_docker(DEBIAN)
    module = demo()
    source, dependencies = module.fetch()
    shown: list[str] = []
    inside, seconds, receipt = await module.run_inside(source, dependencies, shown.append)
    counts = module.counted(inside.stdout.decode())
    assert counts["passed"] >= 1000
    assert counts == module.counted(module.run_outside(source, dependencies))
    assert "".join(shown) == inside.stdout.decode()
    assert len(shown) > 1
    assert receipt.gaps == ()
    assert seconds > 0
