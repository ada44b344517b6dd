"""A granted spec says everything of the create call, and nothing weakens it."""

import json
from pathlib import Path
from typing import Any

import pytest

from ringfence.backends.base import Bind
from ringfence.backends.docker.config import Placement, create_body
from ringfence.backends.docker.images import Image
from ringfence.backends.docker.machine import Machine
from ringfence.backends.docker.place import on_volume
from ringfence.backends.docker.refusals import refuse
from ringfence.errors import PolicyDeniedError, UnsupportedError
from ringfence.policy.facts import ImageFacts
from ringfence.spec import SandboxSpec

from .fakes import IMAGE, MACHINE, machine

STREAM = Placement(["/g", "--stream"], [], stream=True)
HOSTS = Path("/state/docker/hosts")
SOCKET = Placement(["/g", "--socket", "/d"], [{"Type": "bind"}], stream=False)


def body(
    placement: Placement = SOCKET,
    of: Machine = MACHINE,
    image: Image = IMAGE,
    binds: tuple[Bind, ...] = (),
    devices: tuple[str, ...] = (),
    hosts: Path | None = None,
    **spec: Any,
) -> dict[str, Any]:
    parsed = SandboxSpec.parse(spec)
    return create_body(
        parsed, image, placement, of, binds=binds, labels={"a": "b"}, devices=devices, hosts=hosts
    )


def test_what_the_image_says_of_its_start_is_overruled() -> None:
    made = body()
    assert made["User"] == "0:0"
    assert made["Entrypoint"] == ["/g", "--socket", "/d"]
    assert made["Cmd"] == []
    assert made["Healthcheck"] == {"Test": ["NONE"]}
    assert made["StopSignal"] == "SIGTERM"
    assert made["HostConfig"]["Init"] is False


def test_the_guest_has_three_capabilities_and_nothing_new_by_exec() -> None:
    host = body()["HostConfig"]
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], ["KILL", "SETGID", "SETUID"])
    assert host["SecurityOpt"][0] == "no-new-privileges"
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["AutoRemove"] is True
    assert host["LogConfig"] == {"Type": "none"}


def test_the_seccomp_profile_is_the_granted_one() -> None:
    options = body(security={"seccomp": "strict"})["HostConfig"]["SecurityOpt"]
    profile = json.loads(options[1].removeprefix("seccomp="))
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert not any("mount" in entry["names"] for entry in profile["syscalls"])


@pytest.mark.parametrize("mode", ["none", "proxy"])
def test_without_a_bridge_there_is_no_network_twice_over(mode: str) -> None:
    made = body(network={"mode": mode}, hosts=HOSTS)
    assert made["NetworkDisabled"] is True
    assert made["HostConfig"]["NetworkMode"] == "none"


def test_without_a_network_localhost_has_a_name_by_our_file_or_by_the_engine_s() -> None:
    """Unless something of the spec's is in that place."""
    assert _named(body(hosts=HOSTS)) == {"/etc/hosts": (str(HOSTS), True)}
    assert body()["NetworkDisabled"] is False
    for path in ("/etc", "/etc/hosts"):
        made = body(hosts=HOSTS, binds=(Bind("/mine", path),))
        assert _named(made) == {path: ("/mine", True)}
        assert made["NetworkDisabled"] is True
    assert _named(body(hosts=HOSTS, security={"tmpfs": {"/etc": 2**20}})) == {}
    assert _named(body(hosts=HOSTS, network={"mode": "bridge"}, profile="permissive")) == {}


def _named(made: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """What is bound at or below /etc."""
    return {
        mount["Target"]: (mount["Source"], mount["ReadOnly"])
        for mount in made["HostConfig"]["Mounts"]
        if mount.get("Target", "").startswith("/etc")
    }


def test_a_bridge_has_its_names() -> None:
    network = {
        "mode": "bridge",
        "dns": ["192.0.2.1"],
        "dns_search": ["a.example"],
        "dns_options": ["ndots:2"],
        "extra_hosts": {"h.example": "192.0.2.2"},
    }
    made = body(network=network, profile="permissive")
    host = made["HostConfig"]
    assert made["NetworkDisabled"] is False
    assert (host["NetworkMode"], host["Dns"]) == ("bridge", ["192.0.2.1"])
    assert host["DnsSearch"] == ["a.example"]
    assert host["DnsOptions"] == ["ndots:2"]
    assert host["ExtraHosts"] == ["h.example:192.0.2.2"]


def test_limits_are_the_cgroup_s_with_headroom_for_the_guest() -> None:
    limits = {"memory": 2**28, "cpus": 1.5, "pids": 100, "cpuset": "0-1", "cpu_shares": 512}
    host = body(limits=limits)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (2**28, 2**28)
    assert host["NanoCpus"] == 1_500_000_000
    assert host["PidsLimit"] == 132
    assert (host["CpusetCpus"], host["CpuShares"]) == ("0-1", 512)
    assert (
        body(limits={"memory": 2**28, "swap": 2**20})["HostConfig"]["MemorySwap"] == 2**28 + 2**20
    )


def test_gvisor_gets_headroom_for_its_own_threads() -> None:
    made = body(limits={"pids": 100}, security={"runtime": "runsc"})["HostConfig"]
    assert (made["Runtime"], made["PidsLimit"]) == ("runsc", 612)


def test_every_tmpfs_has_a_size_and_no_way_to_gain_privilege() -> None:
    host = body(
        limits={"tmp": 2**24, "run": 2**20, "shm": 2**25}, security={"tmpfs": {"/cache": 2**22}}
    )["HostConfig"]
    assert host["IpcMode"] == "none"
    assert sorted(host["Tmpfs"]) == ["/cache", "/dev/shm", "/run", "/tmp"]
    for options in host["Tmpfs"].values():
        assert {"nosuid", "nodev", "noexec"} <= set(options.split(","))
        assert "nr_inodes=" in options
    assert f"size={2**24}," in host["Tmpfs"]["/tmp"]
    assert f"size={2**25}," in host["Tmpfs"]["/dev/shm"]


def test_programs_run_from_tmp_only_when_granted() -> None:
    tmpfs = body(limits={"tmp": 2**24, "run": 2**20}, security={"tmp_exec": True})
    assert "noexec" not in tmpfs["HostConfig"]["Tmpfs"]["/tmp"]
    assert "noexec" in tmpfs["HostConfig"]["Tmpfs"]["/run"]


def test_limits_that_would_hit_the_guest_are_left_to_each_command() -> None:
    ulimits = {"nofile": 64, "core": 0, "nproc": 10, "cpu": 5, "fsize": 100}
    made = body(limits={"ulimits": ulimits})["HostConfig"]["Ulimits"]
    assert made == [
        {"Name": "nofile", "Soft": 8192, "Hard": 8192},
        {"Name": "core", "Soft": 0, "Hard": 0},
    ]


def test_what_the_daemon_gives_every_container_does_not_hit_the_guest() -> None:
    """default-ulimits of the daemon, below which no command could have had its own either."""
    seen = machine(daemon=7, ulimits={"nproc": 900})
    assert body(of=seen)["HostConfig"]["Ulimits"] == [
        {"Name": "nproc", "Soft": 900, "Hard": 900},
        {"Name": "fsize", "Soft": -1, "Hard": -1},
        {"Name": "cpu", "Soft": -1, "Hard": -1},
    ]


def test_what_bounds_the_daemon_bounds_nothing_in_gvisors_kernel() -> None:
    seen = machine(daemon=7, ulimits={"nproc": 900})
    made = body(of=seen, security={"runtime": "runsc"})["HostConfig"]["Ulimits"]
    assert {"Name": "nproc", "Soft": -1, "Hard": -1} in made


def test_unlimited_is_said_as_the_engine_says_it() -> None:
    made = body(limits={"ulimits": {"core": {"soft": 7, "hard": "unlimited"}}})["HostConfig"]
    assert made["Ulimits"] == [{"Name": "core", "Soft": 7, "Hard": -1}]


def test_the_guest_s_open_files_stay_within_what_the_machine_gives() -> None:
    made = body(of=machine(nofile=1000), limits={"ulimits": {"nofile": 64}})
    assert made["HostConfig"]["Ulimits"] == [{"Name": "nofile", "Soft": 1000, "Hard": 1000}]


def test_rates_hold_for_the_disks_found() -> None:
    host = body(devices=("/dev/vda",), limits={"read_rate": 1000, "write_rate": 2000})["HostConfig"]
    assert host["BlkioDeviceReadBps"] == [{"Path": "/dev/vda", "Rate": 1000}]
    assert host["BlkioDeviceWriteBps"] == [{"Path": "/dev/vda", "Rate": 2000}]


def test_a_bind_leaves_out_what_is_mounted_below_it() -> None:
    mounts = body(binds=(Bind("/a", "/b"), Bind("/c", "/d", read_only=False)))["HostConfig"][
        "Mounts"
    ]
    assert [(m["Source"], m["Target"], m["ReadOnly"]) for m in mounts[1:]] == [
        ("/a", "/b", True),
        ("/c", "/d", False),
    ]
    assert all(m["BindOptions"]["NonRecursive"] for m in mounts[1:])


def test_volumes_of_the_image_are_no_way_to_write_without_a_limit() -> None:
    image = Image(ImageFacts("sha256:abc"), ("/b", "/data", "/tmp"))
    host = body(image=image, binds=(Bind("/a", "/b"),), limits={"tmp": 4096})["HostConfig"]
    found = [mount for mount in host["Mounts"] if mount["Type"] != "bind"]
    assert [(mount["Type"], mount["Target"]) for mount in found] == [("tmpfs", "/data")]
    assert found[0]["TmpfsOptions"]["SizeBytes"] == 4096


def test_paths_are_masked_on_top_of_the_usual_ones() -> None:
    host = body(security={"masked_paths": ["/proc/cpuinfo"], "read_only_paths": ["/proc/tty"]})
    assert {"/proc/cpuinfo", "/proc/kcore", "/sys/firmware"} <= set(
        host["HostConfig"]["MaskedPaths"]
    )
    assert {"/proc/tty", "/proc/sys"} <= set(host["HostConfig"]["ReadonlyPaths"])


def test_stdin_of_a_detached_stream_outlives_its_client() -> None:
    assert body(STREAM)["StdinOnce"] is True
    assert body(STREAM, detached=True, lifetime=60)["StdinOnce"] is False
    assert body(SOCKET)["OpenStdin"] is False


@pytest.mark.parametrize(
    ("spec", "of", "control"),
    [
        ({"security": {"apparmor": "mine"}}, MACHINE, "apparmor"),
        ({"security": {"selinux": "mine_t"}}, MACHINE, "selinux"),
        ({"security": {"user_namespace": True}}, MACHINE, "user_namespace"),
        ({"security": {"runtime": "kata"}}, MACHINE, "runtime"),
        ({}, machine(security=frozenset()), "seccomp"),
        ({"limits": {"memory": 2**28}}, machine(limits=frozenset()), "memory"),
        ({"limits": {"pids": 10}}, machine(limits=frozenset()), "pids"),
        ({"limits": {"disk": 2**28}}, MACHINE, "disk"),
    ],
)
def test_what_the_daemon_would_ignore_is_refused_unless_let_go(
    spec: dict[str, Any], of: Machine, control: str
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        refuse(SandboxSpec.parse(spec), of)
    assert caught.value.context["controls"] == [control]
    security = {**spec.get("security", {}), "allow_degraded": [control]}
    refuse(SandboxSpec.parse({**spec, "security": security}), of)


def test_a_repository_has_no_owner_where_the_daemon_maps_users(tmp_path: Path) -> None:
    """In mode ro it can be read where everyone may; else it is refused with a sentence."""
    maps = machine(security=frozenset({"seccomp", "userns"}))
    tmp_path.chmod(0o755)
    for mode in ("copy", "rw"):
        spec = SandboxSpec(repository={"path": str(tmp_path), "mode": mode})
        with pytest.raises(UnsupportedError, match=r"repository: .*userns-remap.*'ro'"):
            refuse(spec, maps)
    readable = SandboxSpec(repository={"path": str(tmp_path), "mode": "ro"})
    refuse(readable, maps)
    tmp_path.chmod(0o700)
    with pytest.raises(UnsupportedError, match="others may not read it"):
        refuse(readable, maps)
    refuse(readable, machine(security=frozenset({"seccomp"})))


def test_a_rootless_daemon_gives_a_repository_to_root_inside_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its user is root there: whoever else a command is could read it, and write nothing. What
    this machine's root makes of a repository, that user does not see."""
    rootless = machine(security=frozenset({"seccomp", "rootless"}))
    tmp_path.chmod(0o755)
    repository = {"path": str(tmp_path), "mode": "copy"}
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(UnsupportedError, match=r"repository: .*rootless.*be that user"):
        refuse(SandboxSpec(repository={**repository, "mode": "ro"}), rootless)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for user in (None, "1000", "1001:1001"):
        with pytest.raises(UnsupportedError, match=r"repository: .*rootless.*user 0.*'ro'"):
            refuse(SandboxSpec(repository=repository, user=user), rootless)
    refuse(SandboxSpec(repository=repository, user="0"), rootless)
    refuse(SandboxSpec(repository={**repository, "mode": "ro"}), rootless)


def test_a_daemon_without_cgroups_says_what_a_rootless_one_needs() -> None:
    without = machine(limits=frozenset(), cgroups=False)
    with pytest.raises(UnsupportedError, match=r"memory: .*rootless.*version 2.*--allow-degraded"):
        refuse(SandboxSpec.parse({"limits": {"memory": 2**28}}), without)


def test_what_is_there_is_not_refused() -> None:
    spec = {"security": {"apparmor": "mine", "runtime": "runsc"}, "limits": {"memory": 2**28}}
    refuse(SandboxSpec.parse(spec), machine(security=frozenset({"seccomp", "apparmor"})))


def test_a_security_module_is_asked_for_in_the_engine_s_words() -> None:
    options = body(security={"apparmor": "mine", "selinux": "mine_t"})["HostConfig"]["SecurityOpt"]
    assert {"apparmor=mine", "label=type:mine_t"} <= set(options)


def test_no_disk_of_the_host_is_given_by_whatever_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is there nothing is known where the daemon is elsewhere."""
    spec = SandboxSpec.parse(
        {"security": {"devices": ["/dev/mine"], "allow_degraded": ["devices"]}}
    )
    refuse(spec, MACHINE)
    monkeypatch.setattr(Path, "is_block_device", lambda path: str(path) == "/dev/mine")
    with pytest.raises(PolicyDeniedError, match="/dev/mine"):
        refuse(spec, MACHINE)
    refuse(spec, machine(same_kernel=False))


def test_no_image_fills_the_volume_of_the_guest() -> None:
    """An Engine puts what an image has there into a volume that is empty, unless it is told."""
    for mount in on_volume("volume", b"").mounts:
        assert mount["VolumeOptions"]["NoCopy"] is True
