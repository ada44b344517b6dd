"""What of a running sandbox can be changed, and what is refused before anything is."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import Ceiling, Limits, Ulimit, Ulimits
from tests.conftest import require_bwrap, require_docker, require_root
from tests.images import DEBIAN

MIB = 2**20

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("process", marks=pytest.mark.process),
    ]
)
def keywords(request: pytest.FixtureRequest, state_directory: Path) -> dict[str, Any]:
    require_root()
    if request.param == "process":
        require_bwrap()
        return {"backend": "process"}
    require_docker(DEBIAN)
    return {"backend": "docker", "image": DEBIAN}


FIXED = {"tmp": MIB, "shm": MIB, "run": MIB, "disk": 2**30, "read_rate": MIB, "write_rate": MIB,
         "network_rate": MIB, "cpu_time": 5, "ulimits": {"nofile": 100}}  # fmt: skip


async def test_what_nothing_could_put_in_force_is_refused(keywords: dict[str, Any]) -> None:
    """Each by its name, and together with what could be changed: that stays as it is."""
    async with ringfence.open(limits={"memory": "64m"}, **keywords) as sandbox:
        before = sandbox.spec.limits
        for name, value in FIXED.items():
            with pytest.raises(ringfence.UnsupportedError, match=name):
                await sandbox.update({"memory": "96m", name: value})
        assert sandbox.spec.limits == before
        assert (await sandbox.usage()).memory_limit == 64 * MIB


@pytest.mark.parametrize(
    "limits", [{"memory": 2**60}, {"memory": MIB}, {"cpus": 4000}, {"cpuset": "0-4000"}]
)
async def test_the_machine_bounds_a_change(
    keywords: dict[str, Any], limits: dict[str, Any]
) -> None:
    """As it bounds an opening, with the same words."""
    (name,) = limits
    async with ringfence.open(limits={"cpuset": "0"}, **keywords) as sandbox:
        with pytest.raises(ringfence.InvalidSpecError, match=rf"^limits\.{name}: "):
            await sandbox.update(limits)
        assert sandbox.spec.limits.cpuset == "0"


async def test_the_ceiling_bounds_a_change(keywords: dict[str, Any]) -> None:
    """Limits and lifetime cannot be raised above what the opening could have had."""
    ceiling = Ceiling(limits=Limits(memory=128 * MIB, timeout=60), lifetime=60)
    async with ringfence.open(limits={"memory": "64m"}, ceiling=ceiling, **keywords) as sandbox:
        with pytest.raises(ringfence.PolicyDeniedError, match="memory"):
            await sandbox.update({"memory": "129m"})
        with pytest.raises(ringfence.PolicyDeniedError, match="timeout"):
            await sandbox.update({"timeout": 61})
        with pytest.raises(ringfence.PolicyDeniedError, match="lifetime: 61 is outside of 0 to 60"):
            await sandbox.extend(61)
        assert (await sandbox.update({"memory": "128m", "timeout": 60})).memory == 128 * MIB
        await sandbox.extend(59)


async def test_the_ceiling_and_the_sandbox_bound_a_command(keywords: dict[str, Any]) -> None:
    """A command of its own asks for no more time, output or ulimits than an opening could."""
    ceiling = Ceiling(limits=Limits(timeout=60, output=MIB))
    limits = {"ulimits": {"nofile": {"soft": 50, "hard": 100}}}
    async with ringfence.open(limits=limits, ceiling=ceiling, **keywords) as sandbox:
        for name, value in (("timeout", 61), ("timeout", float("inf")), ("output", MIB + 1)):
            with pytest.raises(ringfence.PolicyDeniedError, match=rf"^{name}: "):
                await sandbox.exec(["true"], **{name: value})
        above = Ulimits(nofile=Ulimit(soft=50, hard=101))
        with pytest.raises(ringfence.InvalidSpecError, match=r"nofile: 101 .* 0 to 100"):
            await sandbox.exec(["true"], ulimits=above)
        within = Ulimits(nofile=Ulimit(soft=100, hard=100))
        result = await sandbox.exec(shell="ulimit -n", ulimits=within, timeout=60, output=MIB)
        assert result.stdout == b"100\n"


async def test_memory_and_swap_change_by_themselves(keywords: dict[str, Any]) -> None:
    """The kernel counts their sum: changing one leaves the other as it was."""
    try:
        opening = await ringfence.open(limits={"memory": "64m", "swap": "32m"}, **keywords)
    except ringfence.UnsupportedError:  # the kernel does not count swap
        return
    async with opening as sandbox:
        limits = await sandbox.update({"memory": "96m"})
        assert (limits.memory, limits.swap) == (96 * MIB, 32 * MIB)
        assert await _swap(sandbox) == 32 * MIB
        await sandbox.update({"swap": "8m"})
        assert await _swap(sandbox) == 8 * MIB
        assert (await sandbox.usage()).memory_limit == 96 * MIB


async def _swap(sandbox: ringfence.Sandbox) -> int:
    evidence = await sandbox._context.instance.evidence()
    files = evidence.cgroup
    if "memory.swap.max" in files:
        return int(files["memory.swap.max"])
    return int(files["memory.memsw.limit_in_bytes"]) - int(files["memory.limit_in_bytes"])


async def test_less_memory_than_is_used_is_refused(keywords: dict[str, Any]) -> None:
    """With one error on every backend; what it has stays."""
    limits = {"memory": "128m", "tmp": "100m"}
    async with ringfence.open(limits=limits, **keywords) as sandbox:
        assert (await sandbox.exec(shell="head -c 64m /dev/zero >/tmp/full")).ok
        with pytest.raises(ringfence.ResourceExhaustedError, match="it uses more"):
            await sandbox.update({"memory": "32m"})
        assert (await sandbox.usage()).memory_limit == 128 * MIB
        assert sandbox.spec.limits.memory == 128 * MIB


async def test_who_comes_later_sees_what_was_changed(keywords: dict[str, Any]) -> None:
    """A detached sandbox's record has the limits that hold now."""
    async with ringfence.open(detached=True, lifetime=300, **keywords) as sandbox:
        await sandbox.update({"pids": 99, "timeout": 7})
    async with ringfence.open(id=sandbox.id) as again:
        try:
            assert (again.spec.limits.pids, again.spec.limits.timeout) == (99, 7)
        finally:
            await again.delete()


async def test_a_pause_is_no_idleness(keywords: dict[str, Any]) -> None:
    """One that was paused for longer than it may be idle is idle from its resuming on."""
    async with ringfence.open(idle_timeout=2, **keywords) as sandbox:
        await sandbox.pause()
        sandbox._context.life._touched -= 60
        await sandbox.resume()
        assert ((await sandbox.health()).idle or 0) < 30
        assert (await sandbox.exec(["true"])).ok


async def test_changes_at_the_same_time_leave_each_other_in_force(
    keywords: dict[str, Any],
) -> None:
    """Memory and swap are told to the kernel together: none takes the other's back."""
    async with ringfence.open(limits={"memory": "64m", "swap": "8m"}, **keywords) as sandbox:
        await asyncio.gather(
            sandbox.update({"memory": "96m"}),
            sandbox.update({"swap": "16m"}),
            sandbox.update({"pids": 77}),
        )
        limits = sandbox.spec.limits
        assert (limits.memory, limits.swap, limits.pids) == (96 * MIB, 16 * MIB, 77)
        assert (await sandbox.usage()).memory_limit == 96 * MIB


async def test_a_sandbox_that_was_deleted_is_not_asked_what_its_machine_can_give(
    keywords: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its backend is closed: a connection that is made then would stay."""
    async with ringfence.open(**keywords) as sandbox:
        await sandbox.delete()

        async def facts() -> None:
            pytest.fail("the backend was asked")

        monkeypatch.setattr(sandbox._context, "facts", facts)
        with pytest.raises(ringfence.StateError, match="deleted"):
            await sandbox.update({"memory": "96m"})
