"""What a run on the process backend loads."""

import pytest

from tests.conftest import require_bwrap, require_root
from tests.unit.cli.test_loading import loaded, unused_of

pytestmark = pytest.mark.process


def test_a_plain_run_loads_no_part_that_it_does_not_have(state_directory: object) -> None:
    """No repository, no image, no snapshot, no proxy, no Engine."""
    require_bwrap()
    require_root()
    modules = loaded("run", "--backend", "process", "--", "true")
    assert "ringfence.backends.process.instance" in modules
    assert not unused_of(modules)
    assert not modules & {"argparse", "tarfile", "ringfence.backends.mock"}
