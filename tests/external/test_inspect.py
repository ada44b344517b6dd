"""Inspect's own self-check of sandboxes, on each backend."""

from collections.abc import AsyncIterator

import pytest
from inspect_ai.util._sandbox.self_check import *  # noqa: F403 - its tests become this module's

from ringfence import SandboxSpec
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
    spec = SandboxSpec.parse(BACKENDS[request.param])
    made = await RingfenceSandboxEnvironment.sample_init("task", spec, {})
    yield made["default"]
    await RingfenceSandboxEnvironment.sample_cleanup("task", spec, made, False)


@pytest.mark.parametrize("backend", sorted(BACKENDS))
async def test_a_samples_files_have_a_place_without_a_word_in_the_config(backend: str) -> None:
    """They have relative names; the root of the default profile cannot be written."""
    require(backend)
    spec = SandboxSpec(backend=backend, image=BACKENDS[backend].get("image"))
    made = await RingfenceSandboxEnvironment.sample_init("task", spec, {})
    environment = made["default"]
    try:
        await environment.write_file("of/sample.txt", "mine")
        assert (await environment.exec(["cat", "of/sample.txt"])).stdout == "mine"
    finally:
        await RingfenceSandboxEnvironment.sample_cleanup("task", spec, made, False)
