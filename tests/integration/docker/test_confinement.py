"""What was granted is what kernel and Engine say, and what commands meet."""

import asyncio
import contextlib
import json
import os
from pathlib import Path

import pytest

from ringfence.backends.base import Bind
from ringfence.backends.docker import DockerBackend, removal
from ringfence.errors import ImageNotFoundError, InvalidSpecError, UnsupportedError
from ringfence.guest.protocol import Cred
from ringfence.guest.request import ExecRequest, Exit
from ringfence.policy import resolve
from ringfence.spec import Limits, Reason, SandboxSpec

from ...conftest import require_gvisor, require_root
from ...images import DEBIAN
from .conftest import Make, assert_nothing_left, docker, greet, new_id, spec_of

pytestmark = pytest.mark.docker

PATH = {"PATH": "/usr/bin:/bin"}
STATUS = ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb", "NoNewPrivs", "Seccomp", "Uid")


def status_of(text: str) -> dict[str, str]:
    rows = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name: value.strip() for name, value in rows if name in STATUS}


async def test_limits_are_in_the_cgroup(make: Make) -> None:
    place = await make()
    cgroup = (await place.instance.evidence()).cgroup
    memory = cgroup.get("memory.limit_in_bytes", cgroup.get("memory.max"))
    assert memory == str(256 * 2**20)
    assert cgroup["pids.max"] == str(64 + 32)
    quota = cgroup.get("cpu.cfs_quota_us") or cgroup["cpu.max"].split()[0]
    assert quota == "100000"


async def test_rates_are_in_the_cgroup_where_the_data_is_on_a_disk(make: Make) -> None:
    place = await make()
    if "read_rate" not in (await place.backend.features()).limits:
        with pytest.raises(UnsupportedError, match="read_rate"):
            await make(limits={"read_rate": "5m"})
        return
    rated = await make(limits={"read_rate": "5m", "write_rate": "7m"})
    cgroup = (await rated.instance.evidence()).cgroup
    found = " ".join(text for name, text in cgroup.items() if "bps" in name or name == "io.max")
    assert str(5 * 2**20) in found
    assert str(7 * 2**20) in found


async def test_limits_change_while_it_runs(make: Make) -> None:
    place = await make()
    await place.instance.pause()
    await place.instance.update(Limits.parse({"memory": "128m", "pids": 20, "cpus": 0.5}))
    await place.instance.resume()
    cgroup = (await place.instance.evidence()).cgroup
    memory = cgroup.get("memory.limit_in_bytes", cgroup.get("memory.max"))
    assert (memory, cgroup["pids.max"]) == (str(128 * 2**20), "52")
    assert (await place.sh("true")).exit_code == 0


async def test_a_memory_hog_is_killed_and_the_sandbox_lives(make: Make) -> None:
    place = await make(limits={"memory": "32m", "pids": 64})
    ended = await place.sh("x=a; while :; do x=$x$x; done")
    assert ended.signal == 9
    assert ended.oom_kills
    assert (await place.sh("echo alive")).stdout == b"alive\n"
    usage = await place.instance.usage()
    assert usage is not None
    assert usage.memory_limit == 32 * 2**20
    assert usage.oom_kills


async def test_a_fork_bomb_stays_within_the_pids(make: Make) -> None:
    place = await make(limits={"memory": "512m", "pids": 16})
    # A shell that cannot fork gives up by itself: how the command ends is a matter of chance.
    await place.sh("f() { f | f & }; f; sleep 100", timeout=1.0)
    usage = await place.instance.usage()
    assert usage is not None
    assert usage.pids is not None
    assert usage.pids <= 16 + 32
    await place.session.kill_all()
    assert (await place.sh("echo alive")).stdout == b"alive\n"


async def test_a_command_has_nothing_and_the_guest_three_capabilities(make: Make) -> None:
    place = await make()
    inside = status_of((await place.sh("cat /proc/self/status")).stdout.decode())
    assert inside["CapEff"] == inside["CapPrm"] == inside["CapInh"] == "0000000000000000"
    assert (inside["NoNewPrivs"], inside["Seccomp"]) == ("1", "2")
    guest = status_of((await place.instance.evidence()).guest_status)
    assert guest["CapEff"] == "00000000000000e0"
    assert (guest["NoNewPrivs"], guest["Seccomp"]) == ("1", "2")


async def test_only_a_loopback_of_its_own_is_there(make: Make) -> None:
    place = await make()
    ended = await place.sh("cat /proc/net/dev | tail -n +3 | cut -d: -f1; cat /proc/net/route")
    assert ended.stdout.split()[0] == b"lo"
    assert len(ended.stdout.splitlines()) == 2


async def test_the_root_is_read_only_and_the_tmpfs_are_sized(make: Make) -> None:
    place = await make()
    ended = await place.sh("touch /x /etc/x /.ringfence/x /.ringfence/run/x /.ringfence/guest")
    assert ended.exit_code == 1
    assert ended.stderr.count(b"touch:") == 5
    ended = await place.sh("head -c 20000000 /dev/zero > /tmp/x; wc -c </tmp/x; echo ok >/run/y")
    assert ended.exit_code == 0
    assert int(ended.stdout) <= 16 * 2**20
    mounts = (await place.sh("cat /proc/mounts")).stdout.decode().splitlines()
    options = {line.split()[1]: set(line.split()[3].split(",")) for line in mounts}
    for path in ("/tmp", "/run", "/dev/shm"):
        assert {"nosuid", "nodev", "noexec"} <= options[path], path


async def test_binds_are_seen_and_read_only_ones_stay_so(make: Make, tmp_path: Path) -> None:
    for name in ("ro", "rw"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
        (tmp_path / name / "file").write_text(name)
    place = await make(
        binds=(
            Bind(str(tmp_path / "ro"), "/workspace"),
            Bind(str(tmp_path / "rw"), "/data", read_only=False),
        )
    )
    ended = await place.sh("cat /workspace/file /data/file; echo new > /data/new")
    assert ended.stdout == b"rorw"
    assert (tmp_path / "rw" / "new").read_text() == "new\n"
    assert b"Read-only" in (await place.sh("echo > /workspace/new")).stderr


async def test_an_image_s_volumes_and_health_checks_open_no_hole(make: Make) -> None:
    name = f"ringfence-test-{new_id()}"
    container = docker("create", DEBIAN, "true")
    try:
        docker(
            "commit",
            "-c",
            "VOLUME /data",
            "-c",
            "HEALTHCHECK --interval=1s CMD id",
            container,
            name,
        )
    finally:
        docker("rm", container)
    try:
        place = await make(image=name)
        ended = await place.sh("head -c 20000000 /dev/zero > /data/x; wc -c < /data/x")
        assert int(ended.stdout) <= 16 * 2**20
        seen = json.loads(docker("inspect", place.instance.record.native))[0]
        assert {mount["Type"] for mount in seen["Mounts"]} <= {"bind", "tmpfs"}
        assert "Health" not in seen["State"]
        await place.instance.delete()
    finally:
        docker("rmi", name)


async def test_what_the_daemon_does_not_enforce_is_refused_before_anything_starts(
    make: Make,
) -> None:
    with pytest.raises(UnsupportedError, match="no-such-runtime"):
        await make(security={"runtime": "no-such-runtime"})


@pytest.mark.parametrize("profile", ["strict", "standard", "permissive"])
async def test_every_profile_runs_what_people_run(
    make: Make, backend: DockerBackend, profile: str
) -> None:
    spec = SandboxSpec(image=DEBIAN, profile=profile)  # type: ignore[arg-type]
    granted = resolve(spec, await backend.facts(spec))
    instance = await backend.create(granted, new_id(), await backend.facts(spec))
    try:
        session = await greet(instance)
        script = "import json, sqlite3, threading, subprocess; subprocess.run(['git', '--version'])"
        ended = await session.run(
            ExecRequest(["/usr/bin/python3", "-c", script], uid=1000, gid=1000, env=PATH)
        )
        assert isinstance(ended, Exit)
        assert (ended.exit_code, ended.stderr) == (0, b"")
        assert ended.stdout.startswith(b"git version")
        await session.close()
    finally:
        await instance.delete()
    assert_nothing_left(instance.record.id)


async def test_an_image_that_is_not_there_is_named(make: Make) -> None:
    with pytest.raises(ImageNotFoundError, match="ringfence-test/none"):
        await make(image="ringfence-test/none")
    with pytest.raises(InvalidSpecError, match="image"):
        await make(image=None)


async def test_facts_are_those_of_image_and_machine(make: Make, tmp_path: Path) -> None:
    place = await make()
    spec: SandboxSpec = spec_of(DEBIAN, repository={"path": str(tmp_path)})
    facts = await place.backend.facts(spec)
    assert facts.local
    assert facts.image is not None
    assert facts.image.digest == docker("image", "inspect", "-f", "{{.Id}}", DEBIAN)
    assert facts.image.env["LANG"] == "C.UTF-8"
    assert facts.repository_uid == os.geteuid()
    assert facts.nofile >= 1024
    features = await place.backend.features()
    assert {"memory", "pids", "cpus", "tmp"} <= features.limits
    assert features.transports == ("socket", "stream")


@pytest.mark.gvisor
async def test_gvisor_runs_the_same_over_the_stream(make: Make) -> None:
    require_gvisor()
    place = await make(security={"runtime": "runsc"})
    assert place.instance.record.transport == "stream"
    features = await place.backend.features(place.instance.record.spec)
    assert (features.family_kill, features.transports) == ("user", ("stream",))
    assert (await place.sh("id -u")).stdout == b"1000\n"
    assert (await place.sh("sleep 100 & sleep 100", timeout=1.0)).reason is Reason.TIMEOUT
    who = Cred(1000, 1000)
    await place.session.files.write("/tmp/file", who, b"data")
    assert await place.session.files.read("/tmp/file", who) == b"data"
    owner = await place.session.files.stat("/tmp/file", who)
    assert (owner.uid, owner.gid) == (1000, 1000)
    await place.instance.delete()
    assert not processes_of(place.instance.record.native)


def processes_of(container: str) -> list[str]:
    """Processes of this machine that name a container in their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if container.encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


@pytest.mark.gvisor
async def test_what_a_failed_start_of_gvisor_leaves_running_is_reaped(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_gvisor()
    require_root()
    place = await make(security={"runtime": "runsc"})
    container = place.instance.record.native
    assert processes_of(container)
    assert await asyncio.to_thread(removal.reap, container) >= 1
    for _ in range(200):
        if not processes_of(container):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("something of it still runs")
