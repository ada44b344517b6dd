"""The Docker backend over the socket transport, where daemon and tests share their files."""

from typing import Any

import pytest

from ringfence.testing import SandboxConformance

from ..conftest import require_docker
from ..images import DEBIAN

pytestmark = pytest.mark.docker


class TestDockerSocket(SandboxConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def spec_kwargs(cls) -> dict[str, Any]:
        require_docker(DEBIAN)
        return {"image": DEBIAN}
