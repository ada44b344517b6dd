"""What happens to a machine underneath: full state directory, hands on containers, full house."""

import asyncio
import contextlib
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import Limits, State
from ringfence.backends import registry
from ringfence.ledger import Ledger
from tests.conftest import require_bwrap, require_docker, require_root
from tests.images import BUSYBOX

PATIENCE = 30.0
AT_ONCE = {"docker": 40, "process": 200}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("process", marks=pytest.mark.process),
    ]
)
def name(request: pytest.FixtureRequest, state_directory: Path) -> str:
    require_root()
    if request.param == "docker":
        require_docker(BUSYBOX)
    else:
        require_bwrap()
    return str(request.param)


def keywords(name: str) -> dict[str, Any]:
    return {"image": BUSYBOX} if name == "docker" else {"backend": "process"}


async def until(fact: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + PATIENCE
    while not await fact():
        assert time.monotonic() < end
        await asyncio.sleep(0.1)


async def found(name: str, labels: dict[str, str]) -> list[str]:
    backend = registry.load(name)
    try:
        return [one.id for one in await backend.found(labels)]
    finally:
        await backend.aclose()


@pytest.fixture
def small_disk(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Path]]:
    """A backend, and a state directory on a disk of 4 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0711", "tmpfs", place], check=True)
    monkeypatch.setenv("RINGFENCE_STATE_DIR", str(place))
    try:
        yield name, place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path) -> Path:
    path = place / "ballast"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return path


async def test_a_full_state_directory_is_said_before_anything_starts(
    small_disk: tuple[str, Path], tmp_path: Path
) -> None:
    """A typed error, whether it was ever used before or not; with room again, all is well."""
    name, place = small_disk
    label = {"test": tmp_path.name}
    for _ in range(2):
        ballast = fill(place)
        with pytest.raises(ringfence.ResourceExhaustedError):
            await ringfence.open(labels=label, **keywords(name))
        ballast.unlink()
        assert await found(name, label) == []
        async with ringfence.open(labels=label, **keywords(name)) as sandbox:
            assert (await sandbox.exec(["true"])).ok
    assert Ledger.default().live() == []


async def test_as_many_as_are_asked_for_at_once(name: str, tmp_path: Path) -> None:
    """All from one process; each works, and nothing is left of any."""
    label = {"test": tmp_path.name}

    async def one() -> str:
        async with ringfence.open(labels=label, **keywords(name)) as sandbox:
            return str((await sandbox.exec(["true"])).reason)

    outcomes = await asyncio.gather(*(one() for _ in range(AT_ONCE[name])))
    assert Counter(outcomes) == {"exited": AT_ONCE[name]}
    assert Ledger.default().live() == []

    async def none() -> bool:
        return await found(name, label) == []

    await until(none)


async def test_limits_change_while_it_runs(name: str) -> None:
    """What is in force afterwards is the kernel's word; what cannot be changed is refused whole."""
    async with ringfence.open(limits={"memory": "128m", "pids": 64}, **keywords(name)) as sandbox:
        assert (await sandbox.usage()).memory_limit == 128 * 2**20
        granted = await sandbox.update(Limits(memory=192 * 2**20, cpus=0.5))
        assert (granted.memory, granted.pids, granted.cpus) == (192 * 2**20, 64, 0.5)
        assert (await sandbox.usage()).memory_limit == 192 * 2**20
        with pytest.raises(ringfence.UnsupportedError, match="disk"):
            await sandbox.update(Limits(memory=128 * 2**20, disk=2**30))
        assert (await sandbox.usage()).memory_limit == 192 * 2**20
        assert [event.name for event in sandbox.history].count("LimitsUpdated") == 1


async def test_forks_that_are_refused_are_an_event_with_their_number(name: str) -> None:
    """Counted by the kernel, for a command that failed of it."""
    script = "i=0; while [ $i -lt 200 ]; do sleep 60 & i=$((i + 1)); done; exit 1"
    async with ringfence.open(limits={"pids": 16}, **keywords(name)) as sandbox:
        result = await sandbox.exec(shell=script, timeout=20)
        assert not result.ok
        hits = [event.to_dict() for event in sandbox.history if event.name == "LimitHit"]
        [hit] = [hit for hit in hits if hit["limit"] == "pids"]
        assert hit["counters"]["forks_refused"] >= 1
        usage = await sandbox.usage()
        assert (usage.forks_refused or 0) >= hit["counters"]["forks_refused"]


async def test_lifetime_and_extension_race_and_one_of_them_wins(name: str) -> None:
    """Extended just before its end it lives on; too late, the extension is refused."""
    async with ringfence.open(lifetime=3, **keywords(name)) as sandbox:
        ends = sandbox.info.ends
        assert ends is not None
        extended = True
        while time.time() < ends - 0.05:
            await asyncio.sleep(0.01)
        try:
            await asyncio.gather(*(sandbox.extend(600) for _ in range(5)))
        except ringfence.SandboxError:
            extended = False
        if extended:
            await asyncio.sleep(0.5)
            assert (await sandbox.exec(["true"])).ok
        else:

            async def gone() -> bool:
                return await sandbox.state() is State.EXITED

            await until(gone)


@pytest.mark.docker
async def test_a_container_that_is_paused_by_hand(state_directory: Path) -> None:
    """Its state is the runtime's, health says that it does not answer, and it goes on afterwards."""
    require_docker(BUSYBOX)
    async with ringfence.open(image=BUSYBOX) as sandbox:
        container = Ledger.default().get(sandbox.id).record.native
        assert await asyncio.to_thread(docker, "pause", container)
        assert await sandbox.state() is State.PAUSED
        health = await sandbox.health()
        assert (health.ok, health.state) == (False, State.PAUSED)
        assert await asyncio.to_thread(docker, "unpause", container)
        assert await sandbox.state() is State.RUNNING
        assert (await sandbox.exec(["true"])).ok
        # Engines refuse to pause for a moment after the opposite was done.
        await until(lambda: asyncio.to_thread(docker, "pause", container))
    assert sandbox.id not in await found("docker", {})


def docker(*args: str) -> bool:
    done = subprocess.run(["docker", *args], check=False, capture_output=True, timeout=60)
    return done.returncode == 0


async def test_health_is_bad_while_the_disk_is_full(name: str) -> None:
    """And an event of the monitor says when it turned, and turned back."""
    async with (
        ringfence.open(limits={"tmp": "1m"}, **keywords(name)) as sandbox,
        sandbox.monitor(0.05) as monitor,
    ):

        async def told(ok: bool) -> bool:
            return monitor.health is not None and monitor.health.ok is ok

        async def filled() -> bool:
            # More than once: the monitor's own file had its page while the rest was filled.
            await sandbox.exec(shell="cat /dev/zero >> /tmp/full")
            return await told(False)

        await until(lambda: told(True))
        await until(filled)
        await sandbox.files.remove("/tmp/full")
        await until(lambda: told(True))
    changes = [one.to_dict()["ok"] for one in sandbox.history if one.name == "HealthChanged"]
    assert changes[:3] == [True, False, True]


async def fewest_open_files(sandbox: ringfence.Sandbox) -> int:
    """Over half a second: the guest opens and closes some of its own at any moment."""
    counts = []
    for _ in range(5):
        counts.append(await sandbox.open_files())
        await asyncio.sleep(0.1)
    return min(count for count in counts if count is not None)


async def test_open_files_are_counted_on_demand(name: str) -> None:
    """Those of commands that run count; a sandbox that ended has none to tell of."""
    script = "exec 3</bin/sh 4</bin/sh 5</bin/sh; echo; read word"
    async with ringfence.open(**keywords(name)) as sandbox:
        async with sandbox.spawn(shell=script) as process:
            await process.stdout.readline()
            during = await fewest_open_files(sandbox)
        for _ in range(40):
            if await fewest_open_files(sandbox) <= during - 6:
                break
        else:
            raise AssertionError(f"{during} while it ran, and no 6 fewer afterwards")
    with pytest.raises(ringfence.StateError):
        await sandbox.open_files()
