"""A strict sandbox on Docker for one attack; what it did to the host is looked at from the host."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import ringfence
from ringfence.sandbox.sandbox import Sandbox
from tests.conftest import require_docker
from tests.images import DEBIAN


@pytest.fixture
async def strict(state_directory: Path) -> AsyncIterator[Sandbox]:
    """All defaults of the strict profile."""
    require_docker(DEBIAN)
    async with ringfence.open(image=DEBIAN, backend="docker") as sandbox:
        yield sandbox
