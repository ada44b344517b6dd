"""The Docker backend over the stream transport, as with a daemon elsewhere."""

from collections.abc import Iterator
from typing import Any

import pytest

from ringfence.backends.docker.backend import TRANSPORT_VARIABLE
from ringfence.testing import SandboxConformance

from ..conftest import require_docker
from ..images import BUSYBOX

pytestmark = pytest.mark.docker


class TestDockerStream(SandboxConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def spec_kwargs(cls) -> Iterator[dict[str, Any]]:
        require_docker(BUSYBOX)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(TRANSPORT_VARIABLE, "stream")
            yield {"image": BUSYBOX}

    async def test_the_transport_is_the_stream(self, sandbox: Any) -> None:
        """What is proven here is proven over the container's own streams."""
        assert sandbox.info.transport == "stream"
