"""The process backend, as root, where sandboxes begin with a template."""

import pytest

from . import test_process_root

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("templates_at_once")]


class TestProcessTemplate(test_process_root.TestProcessRoot):
    """The same, begun in the other way."""
