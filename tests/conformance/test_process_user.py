"""The process backend as an ordinary user: no cgroups, one user inside, the same suite."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ..conftest import require_bwrap, require_root

pytestmark = pytest.mark.process
UID = 61235


@pytest.mark.timeout(300)
def test_the_suite_passes_as_an_ordinary_user() -> None:
    """What such a user cannot have is refused, all else holds."""
    require_bwrap()
    require_root()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ringfence-ordinary-") as directory:
        done = subprocess.run(
            [sys.executable, "-m", "tests.conformance.ordinary", str(UID), directory],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
