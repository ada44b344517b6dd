"""Rows 14 and 27: fork bombs and zombies stay in the limit of processes, and are gone afterwards."""

import pytest

import ringfence
from ringfence.spec import Reason

from .conftest import BOTH, needs_limits, python, sh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), BOTH]

BOMBS = {
    "shell": "bomb() { bomb | bomb & }; bomb; sleep 600",
    "double fork": """exec python3 -c '
import os, time
while True:
    try:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            os._exit(0)
    except OSError:
        pass
'""",
    "threads": """exec python3 -c '
import threading, time
while True:
    try:
        threading.Thread(target=time.sleep, args=(600,)).start()
    except RuntimeError:
        pass
'""",
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_fork_bomb_stays_in_its_limit(box: ringfence.Sandbox, name: str) -> None:
    """Its timeout is told and all of it is gone by then (a shell may give up first, and leave the
    rest to `kill_all`); the next command runs."""
    result = await box.exec(shell=BOMBS[name], timeout=2.0, grace=0.0)
    if result.reason is Reason.EXITED:
        await box.kill_all()
    else:
        assert result.reason in (Reason.TIMEOUT, Reason.OOM_KILLED)
    left = await sh(box, "ls -d /proc/[0-9]* | wc -l", timeout=60)
    assert int(left) < 20


async def test_a_full_table_of_processes_does_not_keep_the_host_out(
    box: ringfence.Sandbox,
) -> None:
    """While a command holds every process it may have, files are read and the sandbox is emptied."""
    needs_limits(box)
    script = """
import os, time
try:
    while True:
        if os.fork() == 0:
            time.sleep(600)
except OSError:
    print("full", flush=True)
time.sleep(600)
"""
    async with box.spawn(["python3", "-c", script], timeout=120) as process:
        assert await process.stdout.read(5) == b"full\n"
        await box.files.write("/tmp/x", b"x")
        assert await box.files.read("/tmp/x") == b"x"
        assert await box.kill_all() > 0
    assert (await box.exec(["true"])).ok


async def test_orphans_are_reaped(box: ringfence.Sandbox) -> None:
    """Zombies would count against the limit of processes for ever: more than the limit are made."""
    line = "i=0; while [ $i -lt 600 ]; do (true & exec true); i=$((i+1)); done; echo made"
    assert await sh(box, line, timeout=120) == "made\n"
    zombies = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l"
    assert int(await sh(box, zombies)) < 20


async def test_a_parent_that_waits_for_nobody_keeps_its_zombies_to_itself(
    box: ringfence.Sandbox,
) -> None:
    """Its zombies count while it lives and are gone with it."""
    needs_limits(box)
    script = """
import os
made = 0
try:
    while made < 2000:
        if os.fork() == 0:
            os._exit(0)
        made += 1
except OSError:
    pass
print(made)
"""
    assert 50 < int(await python(box, script, timeout=60)) < 2000
    assert int(await sh(box, "ls -d /proc/[0-9]* | wc -l")) < 20
