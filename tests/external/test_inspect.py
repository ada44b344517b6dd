"""Inspect's own self-check of sandboxes, on each backend."""

from collections.abc import AsyncIterator

import pytest
from inspect_ai.util._sandbox.self_check import *  # noqa: F403 - its tests become this module's

import ringfence
from ringfence.integrations.inspect_ai import RingfenceSandboxEnvironment

from .conftest import BACKENDS, require

# No test of the suite is left out; what a backend declares it cannot do is named here with the why.
EXPECTED = {
    ("process", "test_exec_as_user"): "its root cannot be written: no user can be added",
}


@pytest.fixture(params=sorted(BACKENDS))
async def sandbox_env(
    request: pytest.FixtureRequest,
) -> AsyncIterator[RingfenceSandboxEnvironment]:
    require(request.param)
    reason = EXPECTED.get((request.param, request.node.originalname))
    if reason is not None:
        request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    async with ringfence.open(cwd="/tmp", **BACKENDS[request.param]) as sandbox:
        yield RingfenceSandboxEnvironment(sandbox)
