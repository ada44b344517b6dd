"""The process backend, as root."""

from typing import Any

import pytest

from ringfence.testing import SandboxConformance

from ..conftest import require_bwrap, require_root

pytestmark = pytest.mark.process


class TestProcessRoot(SandboxConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def spec_kwargs(cls) -> dict[str, Any]:
        require_bwrap()
        require_root()
        return {"backend": "process"}
