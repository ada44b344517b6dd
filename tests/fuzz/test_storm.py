"""Whatever a host does with a guest for a while, nothing of it stays."""

import os
import time
from pathlib import Path

import pytest

from tests.conftest import require_root

from . import sanitized, storm

STEPS = 400
SOAK_STEPS = int(os.environ.get("SOAK_STEPS", "200000"))
ROUND = 20_000


def test_nothing_is_left_of_a_storm(tmp_path: Path) -> None:
    require_root()
    storm.run(sanitized.guest(tmp_path), seed=1, steps=STEPS)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_nothing_is_left_of_long_storms(tmp_path: Path) -> None:
    """SOAK_STEPS: how many steps, of which each guest takes twenty thousand."""
    require_root()
    program = sanitized.guest(tmp_path)
    first = time.time_ns() // 1_000_000
    for seed in range(first, first + max(1, SOAK_STEPS // ROUND)):
        print(storm.run(program, seed, min(ROUND, SOAK_STEPS)), flush=True)
