"""Every limit holds, read back and tried, or is refused by its name: on each backend.

docs/limits.md points here.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import Limits, Reason
from ringfence.backends import registry
from ringfence.backends.base import Features
from ringfence.backends.docker import DockerBackend
from ringfence.backends.docker.devices import disks_of
from ringfence.backends.mock import MockBackend
from ringfence.spec import SandboxSpec
from tests.conftest import require_bwrap, require_docker, require_gvisor, require_root
from tests.images import DEBIAN
from tests.integration.network.internet import site

MIB = 2**20
ULIMITS = {"nofile": 200, "nproc": 100, "core": 0, "fsize": 3 * MIB, "memlock": 65536,
           "msgqueue": 8192, "stack": 4 * MIB, "cpu": 100, "rtprio": 0}  # fmt: skip
ROWS = {"nofile": "Max open files", "nproc": "Max processes", "core": "Max core file size",
        "fsize": "Max file size", "memlock": "Max locked memory", "msgqueue": "Max msgqueue size",
        "stack": "Max stack size", "cpu": "Max cpu time",
        "rtprio": "Max realtime priority"}  # fmt: skip
"""As proc(5) names them."""

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("process", marks=pytest.mark.process),
        pytest.param("gvisor", marks=[pytest.mark.docker, pytest.mark.gvisor]),
    ]
)
def name(request: pytest.FixtureRequest, state_directory: Path) -> str:
    require_root()
    if request.param == "process":
        require_bwrap()
    elif request.param == "gvisor":
        require_gvisor()
    else:
        require_docker(DEBIAN)
    return str(request.param)


def keywords(name: str) -> dict[str, Any]:
    if name == "process":
        return {"backend": "process"}
    security = {"runtime": "runsc"} if name == "gvisor" else {}
    return {"image": DEBIAN, "security": security}


async def features(name: str) -> Features:
    backend = registry.load("process" if name == "process" else "docker")
    try:
        if isinstance(backend, DockerBackend):
            return await backend.features(SandboxSpec.parse(keywords(name)))
        return await backend.features()
    finally:
        await backend.aclose()


async def test_cgroup_limits(name: str) -> None:
    """memory, swap, cpus, cpuset, cpu_shares, pids: in the kernel's files, and felt inside."""
    limits = {
        "memory": "256m",
        "swap": 0,
        "cpus": 0.5,
        "cpuset": "0",
        "cpu_shares": 512,
        "pids": 64,
    }
    lacking = set(limits) - (await features(name)).limits - {"swap"}
    assert lacking == set(), "this machine has all of these controllers"
    async with ringfence.open(limits=limits, **keywords(name)) as sandbox:
        for one in ("memory", "cpus", "cpuset", "cpu_shares", "pids"):
            assert sandbox.receipt[one].ok, sandbox.receipt[one]
        assert (await sandbox.exec(["nproc"])).stdout == b"1\n"
        usage = await sandbox.usage()
        assert usage.memory_limit == 256 * MIB


async def test_swap_holds_or_is_refused(name: str) -> None:
    """Where the kernel counts it, memory and swap together are what was granted."""
    limits = {"memory": "128m", "swap": "64m"}
    if "swap" not in (await features(name)).limits:
        with pytest.raises(ringfence.UnsupportedError, match="swap"):
            await ringfence.open(limits=limits, **keywords(name))
        return
    async with ringfence.open(limits=limits, **keywords(name)) as sandbox:
        row = sandbox.receipt["swap"]
        assert (row.ok, row.enforced) == (True, str(64 * MIB))


async def test_tmpfs_sizes(name: str) -> None:
    """tmp, shm, run: a file that is larger does not fit."""
    sizes = {"tmp": 2 * MIB, "shm": 3 * MIB, "run": 4 * MIB}
    async with ringfence.open(limits={"memory": "256m", **sizes}, **keywords(name)) as sandbox:
        for path, size in (("/tmp", 2 * MIB), ("/dev/shm", 3 * MIB), ("/run", 4 * MIB)):
            assert sandbox.receipt[f"tmpfs {path}"].ok
            fill = f"head -c {size * 2} /dev/zero > {path}/x; wc -c < {path}/x; rm {path}/x"
            filled = await sandbox.exec(shell=fill)
            assert size // 2 <= int(filled.stdout) <= size


async def test_a_full_tmpfs_is_told_by_its_limit(name: str) -> None:
    """Each by its own, by bytes and, where the kernel counts them, by files."""
    sizes = {"tmp": 2 * MIB, "shm": 3 * MIB, "run": 4 * MIB}
    given = keywords(name)
    given["security"] = {**given.get("security", {}), "tmpfs": {"/scratch": 2 * MIB}}
    async with ringfence.open(limits={"memory": "256m", **sizes}, **given) as sandbox:
        places = {"/tmp": "tmp", "/dev/shm": "shm", "/run": "run", "/scratch": "tmpfs"}
        for path, limit in places.items():
            before = len(sandbox.history)
            filled = await sandbox.exec(shell=f"head -c 8000000 /dev/zero > {path}/x")
            assert not filled.ok
            await sandbox.exec(["rm", f"{path}/x"])
            [hit] = [e.to_dict() for e in sandbox.history[before:] if e.name == "LimitHit"]
            assert (hit["limit"], hit["detail"]) == (limit, f"/bin/sh: {path}")
            assert hit["counters"]["size"] == (sizes | {"tmpfs": 2 * MIB})[limit]
            assert hit["counters"]["free"] < 2 * MIB / 16
        if name == "gvisor":  # there files are as many as the memory allows
            return
        before = len(sandbox.history)
        many = "i=0; while : > /tmp/$i; do i=$((i + 1)); done; exit 1"
        assert not (await sandbox.exec(shell=many, timeout=60)).ok
        [hit] = [e.to_dict() for e in sandbox.history[before:] if e.name == "LimitHit"]
        assert (hit["limit"], hit["counters"]["free_files"]) == ("tmp", 0)


async def test_ulimits(name: str) -> None:
    """All nine, soft and hard, as a command has them; gVisor refuses two and shows none."""
    wanted = dict(ULIMITS)
    if name == "gvisor":
        for one in ("msgqueue", "rtprio"):
            only = {"ulimits": {one: wanted.pop(one)}}
            with pytest.raises(ringfence.UnsupportedError, match=f"ulimits.{one}"):
                await ringfence.open(limits=only, **keywords(name))
    async with ringfence.open(limits={"ulimits": wanted}, **keywords(name)) as sandbox:
        for one in wanted:
            assert sandbox.receipt[f"ulimits.{one}"].ok, sandbox.receipt[f"ulimits.{one}"]
        big = await sandbox.exec(shell="head -c 4000000 /dev/zero > /tmp/x; wc -c < /tmp/x")
        assert int(big.stdout or 0) <= 3 * MIB
        if name != "gvisor":
            shown = (await sandbox.exec(["cat", "/proc/self/limits"])).stdout.decode()
            rows = {line[:26].strip(): line[26:].split()[:2] for line in shown.splitlines()}
            for one, words in ROWS.items():
                assert rows[words] == [str(wanted[one])] * 2, one


async def test_timeout_and_output_are_defaults_of_each_exec(name: str) -> None:
    """And LimitHit tells of both."""
    async with ringfence.open(limits={"timeout": 1, "output": 1000}, **keywords(name)) as sandbox:
        assert (await sandbox.exec(["sleep", "300"])).reason is Reason.TIMEOUT
        much = await sandbox.exec(shell="head -c 5000 /dev/zero", timeout=60)
        assert (len(much.stdout), much.stdout_total, much.ok) == (1000, 5000, True)
        hits = [event.to_dict() for event in sandbox.history if event.name == "LimitHit"]
        assert [hit["limit"] for hit in hits] == ["timeout", "output"]
        assert hits[1]["counters"]["stdout_total"] == 5000


async def test_cpu_time(name: str) -> None:
    """The command says why it ended, and so does the sandbox."""
    async with ringfence.open(limits={"cpu_time": 1}, **keywords(name)) as sandbox:
        result = await sandbox.exec(shell="while :; do :; done", timeout=90)
        assert result.reason is Reason.CPU_TIME
        events = [event.to_dict() for event in sandbox.history if event.name == "LimitHit"]
        assert "cpu_time" in [event["limit"] for event in events]


async def test_cpu_time_of_a_detached_sandbox(name: str) -> None:
    """Its guest holds it, whoever is there, but for gVisor's, which is on no socket."""
    asked = {"limits": {"cpu_time": 1}, "detached": True, "lifetime": 120, **keywords(name)}
    if name == "gvisor":
        with pytest.raises(ringfence.UnsupportedError, match="cpu_time"):
            await ringfence.open(**asked)
        return
    async with ringfence.open(**asked) as sandbox:
        result = await sandbox.exec(shell="while :; do :; done", timeout=90)
        assert result.reason is Reason.CPU_TIME
    with pytest.raises(ringfence.NotFoundError, match="cpu_time"):
        await ringfence.open(id=sandbox.id)


async def test_a_memory_full_of_files_ends_commands_and_not_the_sandbox(name: str) -> None:
    """Files in a tmpfs are nobody's, so that the largest process is killed for them."""
    if name == "gvisor":  # there the whole sandbox ends at its limit of memory
        return
    limits = {"memory": "64m", "tmp": "60m", "shm": "60m"}
    script = "head -c 55000000 /dev/zero >/tmp/x && head -c 55000000 /dev/zero >/dev/shm/x"
    async with ringfence.open(limits=limits, **keywords(name)) as sandbox:
        result = await sandbox.exec(shell=script, timeout=90)
        assert result.reason is not Reason.SANDBOX_LOST
        assert not result.ok
        events = [event.to_dict() for event in sandbox.history if event.name == "LimitHit"]
        assert "memory" in [event["limit"] for event in events]


@pytest.mark.parametrize("row", sorted(set(ROWS) - {"msgqueue", "rtprio"}))
async def test_a_ulimit_above_the_machines_is_refused_by_its_name(name: str, row: str) -> None:
    """Before anything starts; where this machine gives any number, it holds."""
    limits = {"ulimits": {row: "unlimited"}}
    try:
        async with ringfence.open(limits=limits, **keywords(name)) as sandbox:
            assert sandbox.receipt[f"ulimits.{row}"].ok
    except ringfence.InvalidSpecError as error:
        assert error.context["fields"] == [f"limits.ulimits.{row}"]  # noqa: PT017


async def test_rates_hold_or_are_refused(name: str, tmp_path: Path) -> None:
    """On disks, for direct input and output: four times the rate's bytes take two seconds."""
    limits = {"read_rate": "8m", "write_rate": "2m"}
    if not {"read_rate", "write_rate"} <= (await features(name)).limits:
        with pytest.raises(ringfence.UnsupportedError, match="read_rate"):
            await ringfence.open(limits=limits, **keywords(name))
        return
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o777)
    mount = ringfence.Mount(source=str(place), destination="/place", read_only=False)
    async with ringfence.open(limits=limits, mounts=[mount], **keywords(name)) as sandbox:
        assert sandbox.receipt["read_rate"].ok
        assert sandbox.receipt["write_rate"].ok
        if name == "gvisor" or not disks_of([str(place)]):
            return
        write = ["dd", "if=/dev/zero", "of=/place/x", "bs=512k", "count=16", "oflag=direct"]
        begin = time.monotonic()
        assert (await sandbox.exec(write, timeout=120)).ok
        assert time.monotonic() - begin > 2.0


async def test_rates_hold_in_a_workspace(name: str, tmp_path: Path) -> None:
    """The copy of a repository is on a disk of its own, which is limited, too."""
    limits = {"read_rate": "8m", "write_rate": "2m", "disk": "64m"}
    if not {"read_rate", "write_rate"} <= (await features(name)).limits:
        return  # refused in the test above
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "file").write_text("x")
    keys = {**keywords(name), "repository": str(tmp_path / "repository")}
    async with ringfence.open(limits=limits, **keys) as sandbox:
        kind = await sandbox.exec(["stat", "-f", "-c", "%T", "/workspace"])
        if name == "gvisor" or kind.stdout.strip() != b"overlayfs":
            return
        write = ["dd", "if=/dev/zero", "of=x", "bs=512k", "count=16", "oflag=direct"]
        begin = time.monotonic()
        assert (await sandbox.exec(write, timeout=120)).ok
        assert time.monotonic() - begin > 2.0


FETCH = "import urllib.request; print(len(urllib.request.urlopen('http://big.test/x').read()))"


async def test_network_rate_through_the_proxy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six times the rate's bytes take more than two seconds, though some wait in buffers."""
    directory = tmp_path / "public"
    directory.mkdir()
    (directory / "x").write_bytes(b"x" * 600_000)
    with site(directory) as public:

        async def resolve(host: str, port: int) -> Sequence[str]:
            return [public.address]

        monkeypatch.setattr("ringfence.network.proxy.resolve", resolve)
        network = {"mode": "proxy", "allow": ["big.test"]}
        limits = {"network_rate": 100_000}
        async with ringfence.open(network=network, limits=limits, **keywords(name)) as sandbox:
            begin = time.monotonic()
            fetched = await sandbox.exec(["python3", "-c", FETCH], timeout=120)
            assert fetched.stdout == b"600000\n"
            assert time.monotonic() - begin > 2.0


async def test_network_rate_needs_the_proxy(name: str) -> None:
    """Without a network there is nothing to limit."""
    with pytest.raises(ringfence.UnsupportedError, match="network_rate"):
        await ringfence.open(limits={"network_rate": "1m"}, **keywords(name))


async def test_the_mock_refuses_what_needs_a_kernel() -> None:
    """Each by its name."""
    wanted: dict[str, Any] = {"memory": "256m", "swap": 1, "cpus": 1, "cpuset": "0", "disk": "1m",
                              "cpu_shares": 512, "pids": 64, "tmp": "1m", "shm": "1m", "run": "1m",
                              "read_rate": "1m", "write_rate": "1m", "network_rate": "1m",
                              "cpu_time": 5, "ulimits": {"nofile": 100}}  # fmt: skip
    assert set(wanted) == set(Limits.model_fields) - {"timeout", "output"}
    for limit, value in wanted.items():
        with pytest.raises(ringfence.UnsupportedError, match=limit):
            await ringfence.open(backend=MockBackend(), limits={limit: value})


async def test_the_mock_has_timeout_and_output() -> None:
    """As defaults of each exec."""
    mock = MockBackend()
    mock.on(["much"], stdout="x" * 5000)
    async with ringfence.open(backend=mock, limits={"timeout": 0.1, "output": 1000}) as sandbox:
        assert len((await sandbox.exec(["much"], timeout=60)).stdout) == 1000
        assert (await sandbox.exec(["sleep", "300"])).reason is Reason.TIMEOUT
