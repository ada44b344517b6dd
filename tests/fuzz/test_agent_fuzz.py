"""Whatever frames a host sends, the agent reads within its bounds and goes on."""

from pathlib import Path

from tests.conftest import require_root

from . import sanitized

COUNT = 10_000


def test_mutated_frames_never_break_the_agent(tmp_path: Path) -> None:
    require_root()
    program = sanitized.fuzzer(tmp_path)
    last = sanitized.fuzz(program, tmp_path / "inside", seed=1, count=COUNT)
    inputs, answers = (int(word) for word in last.split() if word.isdigit())
    assert inputs == COUNT
    assert answers > COUNT * 16
