"""Rows 24 and 25: a timeout ends all of a command's family, and no child holds its result up."""

import asyncio

import pytest

import ringfence
from ringfence.spec import Reason

from .conftest import ALL, BOTH, GVISOR, sh

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVASIONS = {
    "ignores signals": "trap '' TERM HUP INT; sleep 1731; sleep 1732",
    "a session of its own": "setsid sh -c 'trap \"\" TERM; while :; do sleep 1731; done' & sleep 1732",
    "stopped": "sleep 1731 & kill -STOP $!; kill -STOP $$; sleep 1732",
    "double fork": "(setsid sh -c 'sleep 1731 & exit' &) ; sleep 1732",
    "another name": 'exec python3 -c \'import os; os.execv("/bin/sleep", ["kworker", "1731"])\'',
    "no output": "exec </dev/null >/dev/null 2>&1; sleep 1731",
    "respawns": "r() { sleep 1731 & while :; do wait; sleep 1732 & done; }; r & r & sleep 1733",
}


async def left(box: ringfence.Sandbox) -> str:
    script = (
        "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -cE '(sleep|kworker) 173[1-3]'"
    )
    return await sh(box, script)


@BOTH
@pytest.mark.parametrize("name", EVASIONS)
async def test_nothing_is_left_after_a_timeout(box: ringfence.Sandbox, name: str) -> None:
    """Once it is told, all of the family is gone, whatever it did to get away."""
    result = await box.exec(shell=EVASIONS[name], timeout=0.7, grace=0.1)
    assert result.reason is Reason.TIMEOUT
    assert (await left(box)).strip() == "0"


@pytest.mark.parametrize("kind", [GVISOR], scope="module")
@pytest.mark.parametrize("grace", [0.0, 0.2])
@pytest.mark.parametrize("name", ["a session of its own", "respawns"])
async def test_nothing_is_left_without_a_subreaper_either(
    box: ringfence.Sandbox, name: str, grace: float
) -> None:
    """Where the kernel has none, all of the user's ends; also when SIGTERM was enough for the main
    process."""
    result = await box.exec(shell=EVASIONS[name], timeout=0.7, grace=grace)
    assert result.reason is Reason.TIMEOUT
    assert (await left(box)).strip() == "0"


@BOTH
async def test_a_timeout_spares_other_commands(box: ringfence.Sandbox) -> None:
    async with box.spawn(["sh", "-c", "read x; echo $x"]) as other:
        result = await box.exec(shell=EVASIONS["respawns"], timeout=0.7, grace=0.1)
        assert result.reason is Reason.TIMEOUT
        await other.write(b"spared\n")
        assert (await other.wait()).stdout == b"spared\n"


@BOTH
async def test_what_is_cancelled_is_gone(box: ringfence.Sandbox) -> None:
    command = asyncio.ensure_future(box.exec(shell="echo x > /tmp/on; setsid sleep 1731"))
    while not await box.files.exists("/tmp/on"):
        await asyncio.sleep(0.05)
    command.cancel()
    await asyncio.gather(command, return_exceptions=True)
    assert (await left(box)).strip() == "0"


@ALL
async def test_a_child_that_holds_the_output_does_not_hold_the_result(
    box: ringfence.Sandbox,
) -> None:
    """The result comes when the command ends, not when the last writer closes; the child is told of
    and can be ended."""
    result = await box.exec(shell="sleep 1731 & echo done", timeout=300)
    assert (result.stdout, result.reason) == (b"done\n", Reason.EXITED)
    assert result.survivors
    await box.kill_all()
    assert (await left(box)).strip() == "0"


@ALL
async def test_a_child_that_writes_on_does_not_hold_it_either(box: ringfence.Sandbox) -> None:
    result = await box.exec(shell="yes & echo done", timeout=300)
    assert result.reason is Reason.EXITED
    assert result.stdout_total >= 5
