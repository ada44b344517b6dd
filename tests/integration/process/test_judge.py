"""The example of a judge gives every kind of submission its verdict."""

import importlib.util
import sys
from pathlib import Path

from ringfence import SandboxSpec
from tests.conftest import require_bwrap, require_root

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "judge.py"


async def test_every_submission_gets_its_verdict(state_directory: Path) -> None:
    require_bwrap()
    require_root()
    found = importlib.util.spec_from_file_location("judge", EXAMPLE)
    assert found is not None
    assert found.loader is not None
    example = importlib.util.module_from_spec(found)
    sys.modules["judge"] = example
    try:
        found.loader.exec_module(example)
        example.SECONDS = 5  # a loaded machine may take long to start an interpreter
        spec = SandboxSpec(backend="process", limits=example.LIMITS, profile="strict")
        judged = await example.judge_all(example.OWN, spec)
    finally:
        del sys.modules["judge"]
    verdicts = {name: one.verdict for name, one in judged.items()}
    crashed = verdicts.pop("crash"), verdicts.pop("fork bomb")
    assert all(one.startswith("runtime error") or "limit" in one for one in crashed), crashed
    assert verdicts == {
        "right": "accepted",
        "wrong answer": "wrong answer",
        "endless": "time limit exceeded",
        "asleep": "time limit exceeded",
        "hungry": "memory limit exceeded",
        "loud": "output limit exceeded",
    }
    assert judged["right"].passed == len(example.CASES)
    assert judged["right"].seconds > 0
    assert judged["hungry"].memory > 2**20
