"""A command's own cgroup holds all of its family, under the sandbox's limits, and is gone with it."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import Reason
from ringfence.events import LimitHit
from ringfence.metrics import places_of, reader_for
from ringfence.metrics.places import GUEST_LEAF, mounted_hierarchies
from ringfence.spec import Usage
from tests.conftest import require_bwrap, require_docker, require_root
from tests.images import BUSYBOX

PATIENCE = 60.0
VERSION = 1 if any("memory" in one.controllers for one in mounted_hierarchies()) else 2
COUNTED = ("memory", "cpuacct", "pids", "blkio") if VERSION == 1 else ("unified",)
EACH = 3 if VERSION == 1 else 1
"""How many cgroups a command has at least."""

REFUSED = 4 * 2**20
"""What a peak may be above the sandbox's limit: version 2 counts what it refused there at last, a
huge page of 2 MiB at most."""

FORKS = "i=0; while [ $i -lt 80 ]; do sleep 300 & i=$((i+1)); done; echo all"
HOG = "x=0123456789abcdef; while true; do x=$x$x; done"
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("process", marks=pytest.mark.process),
    ]
)
def where(request: pytest.FixtureRequest, state_directory: Path) -> dict[str, Any]:
    require_root()
    if request.param == "docker":
        require_docker(BUSYBOX)
        return {"image": BUSYBOX}
    require_bwrap()
    return {"backend": "process"}


def directories(sandbox: ringfence.Sandbox) -> list[Path]:
    """The sandbox's cgroups that commands have theirs below."""
    found = places_of(sandbox._context.instance.pid)
    return [Path(found[name].directory) for name in COUNTED]


def own(sandbox: ringfence.Sandbox) -> list[str]:
    """The cgroups of commands that are there."""
    found = [one for top in directories(sandbox) for one in top.iterdir() if one.is_dir()]
    return [str(one) for one in found if one.name != GUEST_LEAF]


async def from_outside(sandbox: ringfence.Sandbox) -> Usage:
    """Its usage as a process sees it that does not hold it."""
    [(_, usage)] = [one async for one in ringfence.usages([sandbox.id])]
    return usage


def counted(line: str) -> bool:
    """Whether this line of /proc/PID/cgroup is of a hierarchy in which commands are counted."""
    names = line.split(":")[1]
    return not names if VERSION == 2 else bool(set(names.split(",")) & set(COUNTED))


def links() -> list[str]:
    """What our descriptors lead to."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return found


async def until(fact: Callable[[], Awaitable[bool] | bool]) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        answer = fact()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


async def test_all_descendants_begin_in_it_and_nobody_else(where: dict[str, Any]) -> None:
    """A grandchild in a session of its own too; the supervisor that started it serves the next."""
    async with ringfence.open(**where) as sandbox:
        line = "setsid sh -c 'cat /proc/self/cgroup; echo; cat /proc/$PPID/cgroup'; echo $PPID"
        first = await sandbox.exec(shell=line, cgroup=True)
        second = await sandbox.exec(shell="cat /proc/self/cgroup; echo $PPID")
        lines = [line for line in first.stdout.decode().splitlines() if ":" in line]
        assert len(lines) >= 2 * EACH
        for line in lines:
            assert ("/exec-" in line) == counted(line), line
        assert b"/exec-" not in second.stdout
        assert first.stdout.split()[-1] == second.stdout.split()[-1], "the same supervisor"
        guest = places_of(sandbox._context.instance.pid)
        assert not any("/exec-" in place.path for place in guest.values())


async def test_a_command_can_neither_leave_it_nor_reach_it(where: dict[str, Any]) -> None:
    async with ringfence.open(profile="permissive", **where) as sandbox:
        script = """
            ls -l /proc/self/fd
            ways="-name tasks -o -name cgroup.procs"
            for file in $(find / -xdev $ways 2>/dev/null; find /sys/fs/cgroup $ways 2>/dev/null); do
                echo $$ >$file && echo escaped
            done
            cat /proc/self/cgroup
        """
        for user in (None, "root"):
            found = (await sandbox.exec(shell=script, cgroup=True, user=user)).stdout.decode()
            assert "tasks" not in found
            assert "cgroup.procs" not in found
            assert "escaped" not in found
            assert found.count("/exec-") >= EACH


async def test_a_bystander_gets_hold_of_no_descriptor(where: dict[str, Any]) -> None:
    """One of the same user that looks at every process while commands are started."""
    async with ringfence.open(**where) as sandbox:
        script = """
            echo ready
            while [ ! -e /tmp/stop ]; do
                for fd in /proc/[0-9]*/fd/*; do
                    case $(readlink "$fd") in */tasks | */cgroup.procs) echo "stolen $fd" ;; esac
                done
            done
        """
        async with sandbox.spawn(shell=script, timeout=250) as bystander:
            assert await bystander.stdout.readline() == b"ready\n"
            for _ in range(100):
                assert (await sandbox.exec(["true"], cgroup=True)).usage.cgroup is not None
            await sandbox.files.write("/tmp/stop", b"")
            ended = await bystander.wait()
        assert (ended.exit_code, await bystander.stdout.read()) == (0, b"")


@pytest.mark.parametrize("way", ["ended", "missing", "timeout", "cancelled", "spawned", "left"])
async def test_nothing_of_it_is_left(where: dict[str, Any], way: str) -> None:
    async with ringfence.open(**where) as sandbox:
        if way == "ended":
            await asyncio.gather(*(sandbox.exec(["true"], cgroup=True) for _ in range(20)))
        elif way == "missing":
            await sandbox.exec(["no-such-program"], cgroup=True)
        elif way == "timeout":
            await sandbox.exec(shell="setsid sleep 9 & sleep 9", timeout=0.2, grace=0, cgroup=True)
        elif way == "cancelled":
            task = asyncio.create_task(sandbox.exec(["sleep", "300"], cgroup=True))
            await until(lambda: bool(own(sandbox)))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        elif way == "spawned":
            async with sandbox.spawn(["sleep", "300"], cgroup=True) as process:
                assert len(own(sandbox)) >= EACH
            assert not process.running
        else:
            result = await sandbox.exec(shell="sleep 300 >/dev/null 2>&1 &", cgroup=True)
            assert result.survivors
            assert len(own(sandbox)) >= EACH, "somebody is in it"
            await sandbox.kill_all()
            await sandbox.exec(["true"], cgroup=True)
        assert own(sandbox) == []
        assert not [link for link in links() if "/exec-" in link]


async def test_a_sandbox_ends_with_those_that_are_in_use(where: dict[str, Any]) -> None:
    async with ringfence.open(**where) as sandbox:
        tops = directories(sandbox)
        await sandbox.exec(shell="sleep 300 >/dev/null 2>&1 &", cgroup=True)
        await sandbox.spawn(["sleep", "300"], cgroup=True)
        assert len(own(sandbox)) >= 2 * EACH
    assert [top for top in tops if top.exists()] == []


async def test_memory_is_limited_and_kills_are_counted(where: dict[str, Any]) -> None:
    """In the command's result, the sandbox's usage and the event, though version 1 counts them in
    the command's cgroup alone."""
    limits = {"memory": "64m", "tmp": "1m", "shm": "1m", "run": "1m"}
    async with ringfence.open(limits=limits, **where) as sandbox:
        result = await sandbox.exec(shell=HOG, timeout=100, cgroup=True)
        assert result.reason is Reason.OOM_KILLED
        assert result.usage.oom_kills == result.usage.cgroup.oom_kills == 1
        assert 32 * 2**20 < result.usage.cgroup.memory_peak <= 64 * 2**20 + REFUSED
        assert (await sandbox.usage()).oom_kills == 1
        assert [hit.limit for hit in sandbox.history if isinstance(hit, LimitHit)] == ["memory"]
        process = await sandbox.spawn(shell=HOG, cgroup=True)
        assert (await process.wait()).reason is Reason.OOM_KILLED
        assert (await sandbox.usage()).oom_kills == 2
        assert (await from_outside(sandbox)).oom_kills == 2


async def test_processes_are_limited_and_refused_forks_are_counted(where: dict[str, Any]) -> None:
    async with ringfence.open(limits={"pids": 16}, **where) as sandbox:
        result = await sandbox.exec(shell=FORKS, timeout=30, grace=0, cgroup=True)
        assert b"all" not in result.stdout
        refused, whole = result.usage.cgroup.forks_refused, (await sandbox.usage()).forks_refused
        assert whole >= 1
        if VERSION == 1 or refused is not None:  # unknown in version 2 from Linux 6.11 on
            assert 1 <= refused <= whole, "the guest may have been refused one, too"
        assert "pids" in [hit.limit for hit in sandbox.history if isinstance(hit, LimitHit)]
        assert (await from_outside(sandbox)).forks_refused == (await sandbox.usage()).forks_refused


async def test_the_sandbox_still_counts_all_processes(where: dict[str, Any]) -> None:
    async with ringfence.open(**where) as sandbox:
        before = await sandbox.usage()
        async with sandbox.spawn(["sleep", "300"], cgroup=True):
            during = await sandbox.usage()
            assert during.processes >= 2
            assert during.processes >= before.processes
            assert await sandbox.open_files() > 0


async def test_a_rate_of_block_io_is_not_got_around(where: dict[str, Any]) -> None:
    """Version 1 does not hold it for cgroups below: then there is none for block io. Version 2
    does."""
    try:
        opened = await ringfence.open(limits={"read_rate": "1m"}, **where)
    except ringfence.UnsupportedError as error:
        pytest.skip(str(error))
    async with opened as sandbox:
        result = await sandbox.exec(["cat", "/proc/self/cgroup"], cgroup=True)
        assert result.usage.cgroup.cpu_seconds > 0
        if VERSION == 2:
            assert result.usage.cgroup.disk_read is not None
            return
        lines = [line for line in result.stdout.decode().splitlines() if ":blkio:" in line]
        assert len(lines) == 1
        assert "/exec-" not in lines[0]
        assert result.usage.cgroup.disk_read is None


async def test_other_commands_are_still_limited_and_counted(where: dict[str, Any]) -> None:
    """Those that ran before the first cgroup of a command, and those without one after it."""
    limits = {"memory": "64m", "pids": 16, "tmp": "1m", "shm": "1m", "run": "1m"}
    async with ringfence.open(limits=limits, **where) as sandbox:
        early = await sandbox.spawn(shell="read line; " + HOG)
        before = await sandbox.usage()
        assert (await sandbox.exec(["true"], cgroup=True)).usage.cgroup is not None
        after = await sandbox.usage()
        assert after.processes >= before.processes
        assert after.threads >= before.threads
        assert (await early.communicate(b"\n")).reason is Reason.OOM_KILLED
        late = await sandbox.exec(shell=HOG, timeout=100)
        assert (late.reason, late.usage.oom_kills) == (Reason.OOM_KILLED, 1)
        forks = await sandbox.exec(shell=FORKS, timeout=30, grace=0)
        assert b"all" not in forks.stdout
        usage = await sandbox.usage()
        assert usage.oom_kills == 2
        assert usage.forks_refused >= 1
        assert usage.memory_limit == 64 * 2**20
        assert {"memory", "pids"} == {
            hit.limit for hit in sandbox.history if isinstance(hit, LimitHit)
        }


async def test_a_new_look_at_the_sandbox_sees_all_of_it(where: dict[str, Any]) -> None:
    """That of another process, which knows its first process alone."""
    async with (
        ringfence.open(limits={"memory": "64m"}, **where) as sandbox,
        sandbox.spawn(["sleep", "300"], cgroup=True),
    ):
        with reader_for(sandbox._context.instance.pid) as reader:
            seen, known = reader.read(), await sandbox.usage()
            assert seen.memory_limit == known.memory_limit == 64 * 2**20
            assert seen.processes == known.processes >= 2
            assert (reader.open_files() or 0) > 0


async def test_pause_and_update_reach_a_command_in_its_cgroup(where: dict[str, Any]) -> None:
    async with ringfence.open(limits={"memory": "64m"}, **where) as sandbox:
        line = "while true; do echo x; sleep 0.01; done"
        async with sandbox.spawn(shell=line, cgroup=True) as process:
            await process.stdout.readline()
            await sandbox.pause()
            pid = next(iter(_processes(own(sandbox))))
            spent = _spent(pid)
            await asyncio.sleep(0.3)
            assert _spent(pid) == spent
            await sandbox.resume()
            await until(lambda: _spent(pid) > spent)
            await sandbox.update({"memory": "48m"})
        hog = await sandbox.exec(shell=HOG, timeout=100, cgroup=True)
        assert hog.reason is Reason.OOM_KILLED
        assert hog.usage.cgroup.memory_peak <= 48 * 2**20 + REFUSED


def _processes(cgroups: list[str]) -> list[int]:
    """Those in them, the oldest first."""
    return sorted(
        {int(pid) for one in cgroups for pid in Path(one, "cgroup.procs").read_text().split()}
    )


def _spent(pid: int) -> int:
    """Context switches of a process of this machine, which has none while it is frozen."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


async def test_a_sandbox_that_forks_all_the_time_gives_one_too(where: dict[str, Any]) -> None:
    """Its processes have to be moved on version 2, while they start others."""
    async with ringfence.open(**where) as sandbox:
        loop = "(while true; do /bin/true; done) & " * 4 + "echo ready; wait"
        async with sandbox.spawn(shell=loop) as process:
            assert await process.stdout.readline() == b"ready\n"
            result = await sandbox.exec(["true"], cgroup=True)
            assert (result.usage.cgroup.pids_peak or 1) == 1, "nobody else was in it"
        assert own(sandbox) == []


@pytest.mark.docker
async def test_the_engine_still_serves_such_a_container(state_directory: Path) -> None:
    """It starts processes in it, lists them, freezes, limits and removes it."""
    require_root()
    require_docker(BUSYBOX)
    async with ringfence.open(image=BUSYBOX, limits={"memory": "64m"}) as sandbox:
        top = directories(sandbox)[0]
        native = sandbox._context.instance.record.native
        async with sandbox.spawn(["sleep", "300"], cgroup=True):
            said = await docker("exec", native, "sh", "-c", "echo inside; cat /proc/self/cgroup")
            assert said.startswith("inside")
            assert "/exec-" not in said
            assert "sleep 300" in await docker("top", native)
            await docker("pause", native)
            assert (await sandbox._context.instance.state()) == "paused"
            await docker("unpause", native)
            await docker("update", "--memory", "48m", "--memory-swap", "48m", native)
            assert (await sandbox.usage()).memory_limit == 48 * 2**20
            await docker("rm", "--force", native)
        assert not top.exists()


async def docker(*args: str) -> str:
    """What the Engine's own client answers."""
    done = await asyncio.to_thread(
        subprocess.run, ["docker", *args], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


CLIENT = """
import asyncio, os, signal, sys
import ringfence
from ringfence.metrics import places_of

async def main():
    spec = {"image": sys.argv[1]} if sys.argv[1] else {"backend": "process"}
    async with ringfence.open(detached=sys.argv[2] == "detached", lifetime=120, **spec) as sandbox:
        asyncio.create_task(sandbox.exec(["sleep", "1000"], cgroup=True))
        await sandbox.exec(shell="sleep 1000 >/dev/null 2>&1 &", cgroup=True)
        while len(await sandbox.processes()) < 1:
            await asyncio.sleep(0.01)
        places = places_of(sandbox._context.instance.pid)
        names = ("memory", "pids") if "memory" in places else ("unified",)
        places = [places[name].directory for name in names]
        print(sandbox.id, *places, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def client(where: dict[str, Any], how: str) -> tuple[str, list[Path]]:
    """The sandbox of a client that was killed with two of its commands measured; its cgroups."""
    args = [sys.executable, "-c", CLIENT, where.get("image", ""), how]
    done = await asyncio.to_thread(subprocess.run, args, stdout=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL
    name, *tops = done.stdout.decode().split()
    return name, [Path(top) for top in tops]


async def test_a_killed_client_leaves_none(where: dict[str, Any]) -> None:
    _, tops = await client(where, "attached")
    await until(lambda: not any(top.exists() for top in tops))


async def test_a_detached_sandboxs_next_session_clears_up(where: dict[str, Any]) -> None:
    name, _ = await client(where, "detached")
    async with ringfence.open(id=name) as sandbox:
        assert len(own(sandbox)) >= EACH
        await sandbox.kill_all()
        assert (await sandbox.exec(["true"], cgroup=True)).usage.cgroup is not None
        assert own(sandbox) == []
        await sandbox.delete()
