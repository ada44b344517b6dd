"""The process backend, as root, where sandboxes begin with a template."""

from typing import Any

import pytest

from ringfence.testing import SandboxConformance

from ..conftest import require_bwrap, require_root

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("templates_at_once")]


class TestProcessTemplate(SandboxConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def spec_kwargs(cls) -> dict[str, Any]:
        require_bwrap()
        require_root()
        return {"backend": "process"}
