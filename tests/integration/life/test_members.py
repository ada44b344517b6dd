"""What one process makes another one lists, measures, freezes and deletes."""

import asyncio

import pytest

import ringfence
from ringfence.spec import State
from tests.conftest import cgroups_are_ours, on_process, require_cgroups, require_docker
from tests.images import BUSYBOX


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("process", marks=pytest.mark.process),
    ]
)
def spec(request: pytest.FixtureRequest, state_directory: object) -> ringfence.SandboxSpec:
    if request.param == "docker":
        require_docker(BUSYBOX)
        return ringfence.SandboxSpec(image=BUSYBOX)
    return ringfence.SandboxSpec(**on_process())


async def test_members_are_seen_without_a_session(spec: ringfence.SandboxSpec) -> None:
    """Its holder is not disturbed by being listed, measured and deleted."""
    async with ringfence.open(spec, labels={"of": "members"}) as sandbox:
        labels = {"of": "members"}
        [info] = await ringfence.list_sandboxes(labels=labels)
        assert (info.id, info.state) == (sandbox.id, State.RUNNING)
        if spec.backend != "process" or cgroups_are_ours():
            [(name, usage)] = [one async for one in ringfence.usages()]
            assert name == sandbox.id
            assert usage.memory
        assert (await sandbox.exec(["true"])).ok
        running = asyncio.ensure_future(sandbox.exec(["sleep", "600"], timeout=500))
        assert (await ringfence.delete_sandbox(sandbox.id)).state is State.EXITED
        assert (await asyncio.wait_for(running, 60)).reason == "sandbox_lost"
        assert await ringfence.list_sandboxes(labels=labels) == []


async def test_a_detached_one_is_frozen_from_outside(spec: ringfence.SandboxSpec) -> None:
    if spec.backend == "process":
        require_cgroups()
    async with ringfence.open(spec, detached=True, lifetime=600) as sandbox:
        name = sandbox.id
    try:
        await ringfence.pause_sandbox(name)
        [info] = await ringfence.list_sandboxes()
        assert info.state is State.PAUSED
        await ringfence.resume_sandbox(name)
        async with ringfence.open(id=name) as again:
            assert (await again.exec(["echo", "on"])).stdout == b"on\n"
    finally:
        await ringfence.delete_sandbox(name)
    assert await ringfence.list_sandboxes() == []
