"""The process backend, as root, where each sandbox has a bubblewrap."""

import pytest

from . import test_process_root

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("begun_by_bubblewrap")]


class TestProcessBubblewrap(test_process_root.TestProcessRoot):
    """The same, begun in the other way."""
