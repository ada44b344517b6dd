"""Usage, however it is read."""

import pytest

from ...conftest import require_gvisor
from .conftest import Make

pytestmark = pytest.mark.docker


async def test_the_engine_tells_what_the_cgroups_tell(make: Make) -> None:
    """As with a daemon whose cgroups are on another machine."""
    place = await make(limits={"memory": "64m", "pids": 20})
    await place.sh("i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done")
    here = await place.instance.usage()
    place.instance.pid = 0
    there = await place.instance.usage()
    assert here is not None
    assert there is not None
    assert (here.source, there.source) == ("cgroup", "engine")
    assert there.memory_limit == here.memory_limit == 64 * 2**20
    assert there.pids == here.pids
    assert (there.cpu_seconds or 0) >= (here.cpu_seconds or 0) > 0
    assert (there.uptime or 0) > 0
    assert (there.network_received, there.network_sent) == (0, 0)


@pytest.mark.gvisor
async def test_gvisor_is_measured_from_outside(make: Make) -> None:
    """Its kernel's threads count, too."""
    require_gvisor()
    place = await make(security={"runtime": "runsc"})
    before = await place.instance.usage()
    await place.sh("i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done")
    after = await place.instance.usage()
    assert before is not None
    assert after is not None
    assert after.source == "cgroup"
    assert (after.cpu_seconds or 0) > (before.cpu_seconds or 0)
    assert (after.memory or 0) > 0
    assert after.memory_limit == 256 * 2**20
