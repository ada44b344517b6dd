"""What can be asked for, and how what is wrong is named."""

from pathlib import Path
from typing import Any

import pydantic
import pytest

from ringfence.errors import InvalidSpecError
from ringfence.spec import Mount, Repository, SandboxSpec, Ulimit
from ringfence.spec.limits import UNLIMITED, cores

GOOD: list[dict[str, Any]] = [
    {"limits": {"memory": "512MiB", "swap": 0, "cpus": 0.5, "timeout": "5m", "cpuset": "0,2-3"}},
    {"limits": {"swap": "1g", "ulimits": {"nofile": 10, "stack": "unlimited"}}},
    {"limits": {"ulimits": {"cpu": {"soft": 1, "hard": "unlimited"}}}},
    {"security": {"capabilities": ["cap_chown", "SETUID"], "seccomp": "./own.json"}},
    {"security": {"devices": ["/dev/fuse", "/dev/net/tun"], "groups": [5]}},
    {"security": {"sysctls": {"net.ipv4.ip_forward": "0", "kernel.shm_rmid_forced": "1"}}},
    {"network": {"mode": "proxy", "allow": ["pypi.org", ".example.com:8443"], "ports": [80]}},
    {"network": {"mode": "bridge", "dns": ["::1"], "extra_hosts": {"db": "10.0.0.1"}}},
    {"repository": {"path": ".", "include": ["*.py"], "ref": "v1.0", "subpath": "a/b"}},
    {"repository": {"path": "https://example.com/x.git", "owner": 1000, "depth": 1}},
    {"repository": {"path": ".", "owner": 65535}},
    {"snapshot": "sha256:" + "0" * 64, "idle_timeout": "1h"},
]


@pytest.mark.parametrize("data", GOOD)
def test_a_spec_survives_being_written_down(data: dict[str, Any]) -> None:
    """As JSON too: the durable record of a sandbox holds it."""
    spec = SandboxSpec.parse(data)
    assert SandboxSpec.parse(spec.model_dump()) == spec
    assert SandboxSpec.model_validate_json(spec.model_dump_json()) == spec


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"profile": "strikt"}, "profile", "'strict'"),
    ({"imagee": "x"}, "imagee", "'image'"),
    ({"limits": {"memry": 1}}, "limits.memry", "'memory'"),
    ({"limits": {"memory": "1q"}}, "limits.memory", "1q"),
    ({"limits": {"memory": -1}}, "limits.memory", "-1"),
    ({"limits": {"memory": 0}}, "limits.memory", "above 0"),
    ({"limits": {"memory": True}}, "limits.memory", "True"),
    ({"limits": {"memory": float("nan")}}, "limits.memory", "nan"),
    ({"limits": {"memory": 2**80}}, "limits.memory", str(2**62)),
    ({"limits": {"swap": -1}}, "limits.swap", "-1"),
    ({"limits": {"swap": False}}, "limits.swap", "False"),
    ({"limits": {"cpus": 0}}, "limits.cpus", "greater than 0"),
    ({"limits": {"cpus": float("inf")}}, "limits.cpus", "inf"),
    ({"limits": {"cpus": float("nan")}}, "limits.cpus", "nan"),
    ({"limits": {"cpuset": "3-1"}}, "limits.cpuset", "1-3"),
    ({"limits": {"cpuset": "a"}}, "limits.cpuset", "'0-1,3'"),
    ({"limits": {"cpu_shares": 1}}, "limits.cpu_shares", "2"),
    ({"limits": {"pids": 2**40}}, "limits.pids", "less than"),
    ({"limits": {"timeout": "5 parsecs"}}, "limits.timeout", "parsecs"),
    ({"limits": {"timeout": float("inf")}}, "limits.timeout", "inf"),
    ({"limits": {"ulimits": {"nofile": {"soft": 2, "hard": 1}}}}, "limits.ulimits.nofile", "above"),
    ({"limits": {"ulimits": {"nofiles": 2}}}, "limits.ulimits.nofiles", "'nofile'"),
    ({"security": {"no_new_privileges": False}}, "security.no_new_privileges", "True"),
    ({"security": {"privileged": True}}, "security.privileged", "no such field"),
    ({"security": {"capabilities": ["CHOWM"]}}, "security.capabilities", "'CHOWN'"),
    ({"security": {"capabilities": ["SYS_ADMIN"]}}, "security.capabilities", "SYS_ADMIN"),
    ({"security": {"allow_degraded": ["memroy"]}}, "security.allow_degraded", "'memory'"),
    ({"security": {"allow_degraded": ["limits.pids"]}}, "security.allow_degraded", "docs/policy.md"),
    ({"security": {"allow_degraded": ["pids", ""]}}, "security.allow_degraded", "'' is no control"),
    ({"security": {"allow_degraded": ["cpus /tmp"]}}, "security.allow_degraded", "'cpus /tmp'"),
    ({"security": {"allow_degraded": ["network_rate"]}}, "security.allow_degraded", "no control"),
    ({"security": {"allow_degraded": ["tmpfs "]}}, "security.allow_degraded", "'tmpfs'"),
    ({"security": {"allow_degraded": ["tmpfs /\udcff"]}}, "security.allow_degraded", "UTF-8"),
    ({"security": {"seccomp": "unconfined"}}, "security.seccomp", "unconfined"),
    ({"security": {"seccomp": "strct"}}, "security.seccomp", "'strict'"),
    ({"security": {"apparmor": "unconfined"}}, "security.apparmor", "off"),
    ({"security": {"selinux": "disable"}}, "security.selinux", "off"),
    ({"security": {"ipc": "host"}}, "security.ipc", "private"),
    ({"security": {"masked_paths": ["proc"]}}, "security.masked_paths", "proc"),
    ({"security": {"masked_paths": ["/"]}}, "security.masked_paths", "below /"),
    ({"security": {"masked_paths": ["//"]}}, "security.masked_paths", "below /"),
    ({"security": {"masked_paths": ["//proc/x"]}}, "security.masked_paths", "normalised"),
    ({"security": {"read_only_paths": ["/a/../b"]}}, "security.read_only_paths", "normalised"),
    ({"security": {"tmpfs": {"/proc/x": 1}}}, "security.tmpfs", "/proc"),
    ({"security": {"tmpfs": {"/tmp": 1}}}, "security.tmpfs", "limits.tmp"),
    ({"security": {"devices": ["/dev/sda"]}}, "security.devices", "host"),
    ({"security": {"devices": ["/dev/../etc"]}}, "security.devices", "not a device"),
    ({"security": {"devices": ["/dev//mem"]}}, "security.devices", "not a device"),
    ({"security": {"devices": ["/dev/x/../mem"]}}, "security.devices", "not a device"),
    ({"security": {"devices": ["/dev/vsock"]}}, "security.devices", "host"),
    ({"security": {"devices": ["/dev/mmcblk0"]}}, "security.devices", "host"),
    ({"security": {"devices": ["/dev/hidraw0"]}}, "security.devices", "host"),
    ({"security": {"devices": ["/dev/userfaultfd"]}}, "security.devices", "host"),
    ({"security": {"sysctls": {"kernel.panic": "1"}}}, "security.sysctls", "kernel.panic"),
    ({"security": {"sysctls": {"net.ipv4.a/b": "1"}}}, "security.sysctls", "a/b"),
    ({"security": {"groups": [0]}}, "security.groups.0", "0"),
    ({"security": {"oom_score_adj": -1}}, "security.oom_score_adj", "-1"),
    ({"network": {"mode": "host"}}, "network.mode", "host"),
    ({"network": {"allow": ["a.b"]}}, "network", "proxy"),
    ({"network": {"mode": "proxy", "dns": ["1.1.1.1"]}}, "network", "bridge"),
    ({"network": {"mode": "proxy", "allow": ["10.0.0.1"]}}, "network.allow.0.host", "address"),
    ({"network": {"mode": "proxy", "allow": ["0x7f.1"]}}, "network.allow.0.host", "address"),
    ({"network": {"mode": "proxy", "allow": ["*.a.b"]}}, "network.allow.0.host", "'.a.b'"),
    ({"network": {"mode": "proxy", "allow": ["a.b:x"]}}, "network.allow.0", "a.b:x"),
    ({"network": {"mode": "proxy", "allow": ["a@b.c"]}}, "network.allow.0.host", "a@b.c"),
    ({"network": {"mode": "proxy", "allow": ["é" * 99]}}, "network.allow.0.host", "not a host's"),
    ({"network": {"mode": "proxy", "allow": ["a." * 128]}}, "network.allow.0.host", "not a host's"),
    (
        {"network": {"secrets": [{"host": "a.b", "value": "x", "header": "Content-length"}]}},
        "network.secrets.0.header",
        "Content-length",
    ),
    ({"network": {"mode": "bridge", "http_proxy": "http://u:p@x"}}, "network.http_proxy",
     "password"),
    ({"network": {"ports": [{"inside": 1, "host": 9}, {"inside": 2, "host": 9}]}}, "network",
     "one port"),
    ({"repository": {"path": "."}, "mounts": [{"source": "/a", "destination": "/workspace"}]},
     "spec", "two mounts"),
    ({"repository": {"path": ".", "mode": "cow"}}, "repository.mode", "cow"),
    ({"repository": {"path": ".", "ref": "--upload-pack=x"}}, "repository.ref", "branch"),
    ({"repository": {"path": ".", "ref": "a\udcff"}}, "repository.ref", "UTF-8"),
    ({"repository": {"path": ".", "subpath": "../x"}}, "repository.subpath", "relative"),
    ({"repository": {"path": ".", "mount_point": "/usr"}}, "repository.mount_point", "/workspace"),
    ({"repository": {"path": ".", "mount_point": "/workspace/"}}, "repository.mount_point",
     "write '/workspace'"),
    ({"repository": {"path": ".", "git": {"user_name": "a\nb"}}}, "repository.git.user_name",
     "line"),
    ({"cwd": "/proc/self/fd/7"}, "cwd", "/proc"),
    ({"repository": {"path": ".", "git": {"config": {"a.b": "\udcff"}}}}, "repository.git.config",
     "UTF-8"),
    ({"repository": {"path": ".", "owner": 65536}}, "repository.owner", "65536"),
    ({"mounts": [{"source": "/a", "destination": "//proc/x"}]}, "mounts.0.destination",
     "normalised"),
    ({"cwd": "//proc/self/fd/7"}, "cwd", "normalised"),
    ({"cwd": "a"}, "cwd", "absolute"),
    ({"user": "a b"}, "user", "a b"),
    ({"user": 70000}, "user", "65536"),
    ({"user": True}, "user", "True"),
    ({"detached": True}, "spec", "lifetime"),
    ({"snapshot": "latest"}, "snapshot", "digest"),
    ({"lock": "/d\udcff"}, "lock", "UTF-8"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "field", "word"), BAD)
def test_what_is_wrong_is_named(data: dict[str, Any], field: str, word: str) -> None:
    """One error with the field, and the value or what would have been right."""
    with pytest.raises(InvalidSpecError) as caught:
        SandboxSpec.parse(data)
    assert caught.value.context["fields"] == [field]
    assert word in str(caught.value)


def test_a_path_object_is_a_path_and_a_path_alone_a_repository() -> None:
    expected = SandboxSpec.parse(
        {
            "repository": {"path": "/a"},
            "mounts": [{"source": "/b", "destination": "/c"}],
            "lock": "/d",
        }
    )
    mounts = (Mount(source=Path("/b"), destination="/c"),)
    assert SandboxSpec(repository="/a", mounts=mounts, lock=Path("/d")) == expected
    for given in (Path("/a"), Repository(path=Path("/a"))):
        assert SandboxSpec.parse({"repository": given}) == SandboxSpec(repository="/a")
    with pytest.raises(InvalidSpecError, match=r"repository\.path: a path is needed"):
        SandboxSpec.parse({"repository": ""})


NO_NUMBERS = [True, 10**400, -(10**400), 10**5000, float("nan"), float("inf"), "", " ", "1.5.5", -1]
NO_TEXTS = ["9" * 400, "9" * 400 + "d", "\u0661\u0660", "-1", "1e3", "0x10", b"1", False]
OF_TEXTS = ["memory", "swap", "output", "read_rate", "timeout", "cpu_time"]


@pytest.mark.parametrize("name", [*OF_TEXTS, "cpus", "pids", "cpu_shares", "ulimits.nofile"])
def test_what_is_no_number_of_any_limit(name: str) -> None:
    """True is none, though it is a 1; nor are digits of other scripts; none is too long to say."""
    for value in [*NO_NUMBERS, *(NO_TEXTS if name in OF_TEXTS else ())]:
        data: Any = value
        for part in reversed(name.split(".")):
            data = {part: data}
        with pytest.raises(InvalidSpecError, match=rf"^limits\.{name}") as caught:
            SandboxSpec.parse({"limits": data})
        assert len(str(caught.value)) < 400


def test_a_process_has_no_more_seconds_than_its_kernel_can_count() -> None:
    """Some kernels take a larger number for a small one."""
    spec = SandboxSpec.parse({"limits": {"ulimits": {"cpu": "unlimited"}}})
    assert spec.limits.ulimits.cpu == Ulimit.parse("unlimited")
    for cpu in (10**9 + 1, 2**62, {"soft": 1, "hard": 2**63 - 2}):
        with pytest.raises(InvalidSpecError, match=r"^limits\.ulimits\.cpu: .*'unlimited'"):
            SandboxSpec.parse({"limits": {"ulimits": {"cpu": cpu}}})


def test_no_swap_is_a_number_or_a_text() -> None:
    """The command line has texts only."""
    assert SandboxSpec.parse({"limits": {"swap": "0"}}).limits.swap == 0
    assert SandboxSpec.parse({"limits": {"swap": 0}}).limits.swap == 0


def test_a_rule_has_its_host_in_the_form_in_which_it_is_compared() -> None:
    allow = ["BÜCHER.example", ".Example.ORG:8443", "a.b."]
    rules = SandboxSpec.parse({"network": {"mode": "proxy", "allow": allow}}).network.allow
    assert [(rule.host, rule.ports) for rule in rules] == [
        ("xn--bcher-kva.example", (80, 443)), (".example.org", (8443,)), ("a.b", (80, 443)),
    ]  # fmt: skip


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(InvalidSpecError) as caught:
        SandboxSpec.parse({"limits": {"memory": "x", "cpus": -1}, "user": "a b"})
    assert caught.value.context["fields"] == ["user", "limits.memory", "limits.cpus"]


def test_no_message_and_no_text_holds_a_secret() -> None:
    """Neither of a spec that is right nor of one that is wrong."""
    secret = {"host": "a.b", "value": "hunter2"}
    spec = SandboxSpec.parse({"network": {"mode": "proxy", "allow": ["a.b"], "secrets": [secret]}})
    assert "hunter2" not in repr(spec) + spec.model_dump_json()
    wrong: list[dict[str, Any]] = [
        {"network": {"mode": "proxy", "allow": ["x.y"], "secrets": [secret]}},
        {
            "network": {
                "mode": "proxy",
                "allow": ["a.b"],
                "secrets": [{**secret, "value": "hunter2\n"}],
            }
        },
        {"env": {"PASS WORD": "hunter2"}},
        {"network": {"mode": "bridge", "http_proxy": "http://me:hunter2@proxy:3128"}},
    ]
    for data in wrong:
        with pytest.raises(InvalidSpecError) as caught:
            SandboxSpec.parse(data)
        assert "hunter2" not in str(caught.value)
        with pytest.raises(pydantic.ValidationError) as direct:
            SandboxSpec(**data)
        assert "hunter2" not in str(direct.value)


def test_a_ulimit_is_one_number_or_two() -> None:
    assert Ulimit.parse(5) == Ulimit(soft=5, hard=5)
    assert Ulimit.parse("unlimited").hard == UNLIMITED


def test_a_cpuset_is_a_set_of_cores() -> None:
    assert cores("0-2,5") == {0, 1, 2, 5}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"memory": "1g"}, "memory: no such field: it is one of Limits"),
        ({"limits": {"nofile": 3}}, "limits.nofile: no such field: it is one of Ulimits"),
        ({"limits": {"memry": 3}}, "did you mean 'memory'"),
    ],
)
def test_a_field_in_the_wrong_table_is_told_where_it_belongs(data: Any, says: str) -> None:
    with pytest.raises(InvalidSpecError, match=says):
        SandboxSpec.parse(data)
