"""Rows 12 and 13: a flood of output is counted and dropped, and fills no log of the host."""

import json
import subprocess

import pytest

import ringfence
from ringfence.spec import Reason

from .conftest import ALL, ONLY_DOCKER, resident, sh

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 2**20


@ALL
async def test_a_flood_of_output_is_counted_and_dropped(box: ringfence.Sandbox) -> None:
    """128 MiB come out on each stream, 1 MiB of each is kept, and this process stays small."""
    line = f"head -c {128 * MIB} /dev/zero & head -c {128 * MIB} /dev/zero >&2; wait"
    before = resident()
    result = await box.exec(shell=line, timeout=120)
    assert (len(result.stdout), len(result.stderr)) == (MIB, MIB)
    assert (result.stdout_total, result.stderr_total) == (128 * MIB, 128 * MIB)
    assert result.stdout_truncated
    assert resident() - before < 64 * MIB


@ALL
async def test_a_flood_that_nobody_reads_stops_its_writer_alone(box: ringfence.Sandbox) -> None:
    """The client holds a bounded part of it, and other commands go on."""
    before = resident()
    async with box.spawn(["cat", "/dev/zero"], timeout=120) as process:
        assert len(await process.stdout.read(100)) > 0
        for _ in range(5):
            assert (await box.exec(["echo", "x"])).stdout == b"x\n"
        assert resident() - before < 64 * MIB


@ALL
async def test_output_can_be_what_ends_a_command(box: ringfence.Sandbox) -> None:
    result = await box.exec(["cat", "/dev/zero"], output=MIB, on_output_limit="kill", timeout=60)
    assert result.reason is Reason.OUTPUT_LIMIT
    assert len(result.stdout) == MIB


@ALL
async def test_more_than_the_hard_cap_cannot_be_asked_for(box: ringfence.Sandbox) -> None:
    with pytest.raises(ringfence.InvalidSpecError):
        await box.exec(["true"], output=65 * MIB)


@ONLY_DOCKER
async def test_nothing_that_a_command_writes_gets_into_the_engines_log(
    box: ringfence.Sandbox,
) -> None:
    """There is no log, and the first process's streams cannot be written by a command."""
    for target in ("/proc/1/fd/1", "/proc/1/fd/2", "/dev/console", "/dev/kmsg"):
        assert await sh(box, f"(echo evil > {target}) 2>/dev/null && echo wrote") == "", target
    listed = ["docker", "ps", "-q", "--filter", f"label=ringfence.id={box.id}"]
    found = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.strip()
    shown = subprocess.run(["docker", "inspect", found], capture_output=True, check=True).stdout
    assert json.loads(shown)[0]["HostConfig"]["LogConfig"]["Type"] == "none"
