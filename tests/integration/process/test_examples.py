"""The examples that need no image do what they say."""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from ringfence import ExecResult, ExecUsage, Reason, Repository, SandboxSpec
from tests.conftest import require_bwrap, require_root

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
EXITED = ExecResult(("true",), 0, None, Reason.EXITED, b"3\n", b"", 2, 0, 1.0, ExecUsage())


@pytest.fixture
def example(request: pytest.FixtureRequest, state_directory: Path) -> Iterator[ModuleType]:
    """The module of the example that a test names."""
    require_bwrap()
    require_root()
    name = request.param
    found = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.mark.parametrize("example", ["judge"], indirect=True)
async def test_a_judge_gives_every_submission_its_verdict(example: ModuleType) -> None:
    example.SECONDS = 5  # a loaded machine may take long to start an interpreter
    spec = SandboxSpec(backend="process", limits=example.LIMITS, profile="strict")
    judged = await example.judge_all(example.OWN, spec)
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


@pytest.mark.parametrize("example", ["judge"], indirect=True)
def test_a_right_answer_that_took_too_much_processor_time_is_late(example: ModuleType) -> None:
    """The ulimit is a stop with room: what the program used is what counts."""
    used = replace(EXITED, usage=ExecUsage(user_seconds=example.SECONDS + 0.5))
    assert example.verdict(EXITED, "3\n") == "accepted"
    assert example.verdict(used, "3\n") == "time limit exceeded"


@pytest.mark.parametrize("example", ["agent"], indirect=True)
async def test_an_agent_s_shell_stays_where_it_was_and_its_failures_are_text(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/README").write_text("a project\n")
    repository = Repository(path=tmp_path / "repository")
    patch = await example.run(SandboxSpec(backend="process", repository=repository))
    assert b"+one\n+2\n" in patch
    assert [path.name for path in (tmp_path / "repository").iterdir()] == ["README"]
    told = capsys.readouterr().out
    for answer in (
        "/workspace/notes\n\n[exit code 0]",
        "failed: files.read: '/workspace/notes/liszt.txt'",
        "     2  two\n",
        "[timeout: signal",
        "one\n2\n0\n\n[exit code 1]",
    ):
        assert answer in told
