"""What the daemon leaves out or adds is noticed before the first command runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.backends import registry
from ringfence.errors import PolicyDeniedError, SandboxError, UnsupportedError
from ringfence.spec import SandboxSpec
from tests.conftest import require_docker

from .relay import relay

pytestmark = pytest.mark.docker

IMAGE = "ringfence-test/busybox"
Config = dict[str, Any]


@pytest.fixture(autouse=True)
def engine(state_directory: Path) -> None:
    require_docker(IMAGE)


def host(**changes: Any) -> Callable[[Config], None]:
    """A change of HostConfig; None leaves a field out."""

    def change(body: Config) -> None:
        for name, value in changes.items():
            if value is None:
                body["HostConfig"].pop(name, None)
            else:
                body["HostConfig"][name] = value

    return change


def without_tmpfs(path: str) -> Callable[[Config], None]:
    return lambda body: body["HostConfig"]["Tmpfs"].pop(path)


def tmpfs(path: str, options: str) -> Callable[[Config], None]:
    return lambda body: body["HostConfig"]["Tmpfs"].update({path: options})


def seccomp(option: str | None) -> Callable[[Config], None]:
    def change(body: Config) -> None:
        options = body["HostConfig"]["SecurityOpt"]
        kept = [one for one in options if not one.startswith("seccomp=")]
        body["HostConfig"]["SecurityOpt"] = kept + ([option] if option else [])

    return change


def writable_mounts(body: Config) -> None:
    for mount in body["HostConfig"]["Mounts"]:
        mount["ReadOnly"] = False


def hosts_uts(body: Config) -> None:
    body["HostConfig"]["UTSMode"] = "host"
    del body["Hostname"]


STRIPPED: dict[str, tuple[Callable[[Config], Any], str]] = {
    "writable root": (host(ReadonlyRootfs=False), "read_only_root"),
    "capability added": (host(CapAdd=["SETUID", "SETGID", "KILL", "NET_RAW"]), "capabilities"),
    "no seccomp profile": (seccomp(None), "seccomp"),
    "seccomp unconfined": (seccomp("seccomp=unconfined"), "seccomp"),
    "no memory limit": (host(Memory=None, MemorySwap=None), "memory"),
    "more memory": (host(Memory=2**30, MemorySwap=2**30), "memory"),
    "swap": (host(MemorySwap=2**31), "swap"),
    "no cpu limit": (host(NanoCpus=None), "cpus"),
    "no cpuset": (host(CpusetCpus=None), "cpuset"),
    "no cpu shares": (host(CpuShares=None), "cpu_shares"),
    "no pids limit": (host(PidsLimit=None), "pids"),
    "no /tmp": (without_tmpfs("/tmp"), "tmpfs /tmp"),
    "unsized /run": (tmpfs("/run", "rw,nosuid,nodev,noexec"), "tmpfs /run"),
    "executable /tmp": (tmpfs("/tmp", "rw,nosuid,nodev,exec,size=67108864"), "tmpfs /tmp"),
    "no own tmpfs": (without_tmpfs("/cache"), "tmpfs /cache"),
    "the engine's /dev/shm": (without_tmpfs("/dev/shm"), "tmpfs /dev/shm"),
    "files without a limit": (
        tmpfs("/tmp", "rw,nosuid,nodev,noexec,size=67108864,mode=1777"),
        "tmpfs /tmp",
    ),
    "nothing masked": (host(MaskedPaths=[]), "masked_paths"),
    "nothing read-only": (host(ReadonlyPaths=[]), "read_only_paths"),
    "host's ipc": (host(IpcMode="host"), "namespace ipc"),
    "host's uts": (hosts_uts, "namespace uts"),
    "host's cgroups": (host(CgroupnsMode="host"), "namespace cgroup"),
    "oom score": (host(OomScoreAdj=0), "oom_score_adj"),
    "sysctl": (host(Sysctls=None), "sysctl net.ipv4.ip_unprivileged_port_start"),
    "a device": (
        host(Devices=[{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse",
                       "CgroupPermissions": "rw"}]),
        "devices",
    ),
    "the mount writable": (writable_mounts, "mount /data"),
}  # fmt: skip


def spec(directory: Path) -> SandboxSpec:
    """One that asks for everything that can be stripped."""
    return SandboxSpec.parse({
        "image": IMAGE,
        "backend": "docker",
        "mounts": [{"source": str(directory), "destination": "/data"}],
        "limits": {"cpuset": "0", "cpu_shares": 512},
        "security": {
            "tmpfs": {"/cache": "1m"},
            "sysctls": {"net.ipv4.ip_unprivileged_port_start": "1000"},
        },
    })  # fmt: skip


@pytest.fixture
def data() -> Path:
    """A directory that may be bound."""
    return Path(__file__).parent.resolve()


async def test_an_honest_daemon_has_no_gaps(tmp_path: Path, data: Path) -> None:
    """The relay itself changes nothing, so what the tests below see is what they stripped."""
    async with (
        relay(tmp_path, lambda body: None) as endpoint,
        ringfence.open(spec(data), endpoint=endpoint) as sandbox,
    ):
        assert sandbox.receipt.gaps == ()
        named = {control.name for control in sandbox.receipt.controls}
        assert {control for _, control in STRIPPED.values()} <= named
        assert (await sandbox.exec(["true"])).ok


@pytest.mark.parametrize("name", STRIPPED)
async def test_a_stripped_control_is_noticed(tmp_path: Path, data: Path, name: str) -> None:
    """The opening fails and names the control; nothing of the sandbox is left."""
    change, control = STRIPPED[name]
    seen: list[str] = []

    def remember(body: Config) -> None:
        seen.append(body["Labels"]["ringfence.id"])
        change(body)

    async with relay(tmp_path, remember) as endpoint:
        with pytest.raises(PolicyDeniedError) as caught:
            async with ringfence.open(spec(data), endpoint=endpoint):
                pass
    assert control in caught.value.context["controls"]
    assert control in str(caught.value)
    assert len(seen) == 1
    assert await containers(seen[0]) == []


async def containers(sandbox_id: str) -> list[str]:
    """The containers that the Engine itself still has of a sandbox."""
    backend = registry.load("docker")
    try:
        return [found.native for found in await backend.found({"ringfence.id": sandbox_id})]
    finally:
        await backend.aclose()


@pytest.mark.parametrize(("mode", "disabled"), [("bridge", False), ("host", False)])
async def test_a_network_that_was_not_asked_for_is_noticed(
    tmp_path: Path, data: Path, mode: str, disabled: bool
) -> None:
    def change(body: Config) -> None:
        body["NetworkDisabled"] = disabled
        body["HostConfig"]["NetworkMode"] = mode
        body["HostConfig"].pop("Sysctls", None)
        if mode == "host":
            body.pop("Hostname", None)

    async with relay(tmp_path, change) as endpoint:
        with pytest.raises(PolicyDeniedError):
            async with ringfence.open(spec(data), endpoint=endpoint):
                pass


@pytest.mark.parametrize("change", [host(PidMode="host"), host(Privileged=True)])
async def test_what_gives_the_host_away_never_opens(
    tmp_path: Path, data: Path, change: Callable[[Config], None]
) -> None:
    """Whether the engine cannot start it, the guest does not come up or the receipt says so."""
    async with relay(tmp_path, change) as endpoint:
        with pytest.raises(SandboxError):
            async with ringfence.open(spec(data), endpoint=endpoint):
                pass


async def test_the_guest_itself_sets_what_only_weak_daemons_leave_out(
    tmp_path: Path, data: Path
) -> None:
    """no_new_privileges, ulimits and the end of all capabilities hold without the daemon: the
    receipt reads the kernel, which has them in force."""

    def change(body: Config) -> None:
        options = body["HostConfig"]["SecurityOpt"]
        body["HostConfig"]["SecurityOpt"] = [one for one in options if one != "no-new-privileges"]
        body["HostConfig"].pop("Ulimits")
        body["HostConfig"].pop("CapDrop")

    async with (
        relay(tmp_path, change) as endpoint,
        ringfence.open(spec(data), endpoint=endpoint) as sandbox,
    ):
        assert sandbox.receipt["no_new_privileges"].ok
        assert sandbox.receipt["ulimits.nofile"].enforced == "1024:1024"
        assert sandbox.receipt["capabilities"].enforced == "none"


async def test_all_gaps_are_named_at_once(tmp_path: Path, data: Path) -> None:
    async with relay(tmp_path, host(NanoCpus=None, OomScoreAdj=0, MaskedPaths=[])) as endpoint:
        with pytest.raises(PolicyDeniedError) as caught:
            async with ringfence.open(spec(data), endpoint=endpoint):
                pass
    assert set(caught.value.context["controls"]) == {"cpus", "oom_score_adj", "masked_paths"}


async def test_a_gap_that_is_allowed_is_only_shown(tmp_path: Path, data: Path) -> None:
    asked = spec(data)
    security = asked.security.model_copy(update={"allow_degraded": ("oom_score_adj",)})
    asked = asked.model_copy(update={"security": security})
    async with (
        relay(tmp_path, host(OomScoreAdj=0)) as endpoint,
        ringfence.open(asked, endpoint=endpoint) as sandbox,
    ):
        assert [gap.name for gap in sandbox.receipt.gaps] == ["oom_score_adj"]
        assert sandbox.receipt["oom_score_adj"].enforced == "0"


def labels_are_enforced() -> bool:
    """Whether this kernel has a module that keeps labels of processes."""
    try:
        return bool(Path("/proc/self/attr/current").read_text().strip("\0\n"))
    except OSError:
        return False


@pytest.mark.parametrize(("field", "label"), [
    ("apparmor", "docker-default"), ("selinux", "container_t"),
])  # fmt: skip
async def test_a_label_that_the_kernel_does_not_enforce_is_refused(field: str, label: str) -> None:
    """Daemons take such a label in silence where the kernel has no such module."""
    if labels_are_enforced():
        pytest.skip("this kernel enforces labels")
    with pytest.raises((UnsupportedError, PolicyDeniedError), match=field):
        async with ringfence.open(image=IMAGE, backend="docker", security={field: label}):
            pass
