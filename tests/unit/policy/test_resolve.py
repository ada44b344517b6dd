"""What a request is granted: the profile fills, the machine bounds, the policy denies."""

import dataclasses
from typing import Any

import pytest

from ringfence.errors import InvalidSpecError, PolicyDeniedError
from ringfence.policy import PROFILES, Ceiling, Facts, ImageFacts, grant, resolve
from ringfence.policy.users import RESERVED_IDS
from ringfence.spec import Limits, Repository, SandboxSpec, Ulimit, Ulimits

GIB = 2**30
MACHINE = Facts(memory=64 * GIB, cpus=16, nofile=1048576)
SMALL = Facts(memory=2 * GIB, cpus=2, nofile=2048)


def spec(**fields: Any) -> SandboxSpec:
    return SandboxSpec.parse(fields)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_fills_everything_it_speaks_of(name: str) -> None:
    granted, profile = resolve(spec(profile=name), MACHINE), PROFILES[name]
    assert granted.limits == profile.limits
    security = granted.security
    assert security.read_only_root is True
    assert security.capabilities == ()
    assert security.seccomp == name
    assert security.masked_paths == profile.security.masked_paths
    assert security.read_only_paths == profile.security.read_only_paths
    assert security.oom_score_adj == 500
    assert security.tmp_exec is (name != "strict")
    assert security.runtime is None
    assert granted.idle_timeout == profile.idle_timeout
    assert granted.network.mode == "none"
    assert granted.cwd == "/"


def test_strict_is_the_default_and_its_numbers_are_these() -> None:
    limits = resolve(spec(), MACHINE).limits
    assert (limits.memory, limits.swap, limits.cpus, limits.pids) == (512 * 2**20, 0, 1.0, 256)
    assert (limits.timeout, limits.output) == (30.0, 2**20)
    assert limits.ulimits.nofile is not None
    assert limits.ulimits.nofile.hard == 1024


@pytest.mark.parametrize("name", PROFILES)
def test_granting_twice_changes_nothing(name: str) -> None:
    """A granted spec is its own grant: it can be written down and granted again."""
    once = resolve(spec(profile=name, limits={"memory": "1g"}), SMALL)
    assert resolve(once, SMALL) == once


@pytest.mark.parametrize(("image", "owner", "expected"), [
    ("", None, "1000"),
    ("root", None, "1000"),
    ("0:0", None, "1000"),
    ("00", None, "1000"),
    ("app", 1234, "app"),
    ("1001:1002", None, "1001:1002"),
    ("", (1234, 1235), "1234:1235"),
    ("0", (0, 0), "1000"),
    ("", (1234, 0), "1234"),
    (str(RESERVED_IDS[0]), None, "1000"),
    ("", (RESERVED_IDS[1], 1), "1000"),
    (f"app:{RESERVED_IDS[0]}", None, "1000"),
    ("", (1234, RESERVED_IDS[1]), "1234"),
    ("", (70000, 1), "1000"),
    ("", (1234, 70000), "1234"),
])  # fmt: skip
def test_nobody_is_root_unless_asked_for(
    image: str, owner: tuple[int, int] | None, expected: str
) -> None:
    uid, gid = owner if isinstance(owner, tuple) else (owner, owner)
    facts = dataclasses.replace(
        MACHINE, image=ImageFacts("sha256:1", user=image), repository_uid=uid, repository_gid=gid
    )
    assert resolve(spec(), facts).user == expected


def test_the_repository_is_where_commands_begin() -> None:
    granted = resolve(spec(repository=Repository(path=".", mount_point="/code")), MACHINE)
    assert granted.cwd == "/code"


def test_a_profiles_number_above_the_machine_becomes_the_machines() -> None:
    granted = grant(spec(profile="permissive"), SMALL)
    limits = granted.spec.limits
    assert (limits.memory, limits.cpus) == (2 * GIB, 2)
    assert limits.ulimits.nofile is not None
    assert limits.ulimits.nofile.hard == limits.ulimits.nofile.soft == 2048
    assert sorted(note.split(":")[0] for note in granted.notes) == [
        "limits.cpus", "limits.memory", "limits.ulimits.nofile",
    ]  # fmt: skip


def test_a_tmpfs_of_the_profile_shrinks_to_the_memory() -> None:
    assert resolve(spec(limits={"memory": "16m"}), MACHINE).limits.tmp == 16 * 2**20


@pytest.mark.parametrize(("limits", "words"), [
    ({"memory": "3g"}, ("limits.memory", str(3 * GIB), str(2 * GIB))),
    ({"memory": "1m"}, ("limits.memory", str(2**20), str(6 * 2**20))),
    ({"cpus": 2.5}, ("limits.cpus", "2.5", "0.01 to 2")),
    ({"cpus": 0.001}, ("limits.cpus", "0.001", "0.01 to 2")),
    ({"cpuset": "0-2"}, ("limits.cpuset", "'0-2'", "0 to 1")),
    ({"pids": 5000000}, ("limits.pids", "5000000", "4194304")),
    ({"ulimits": {"nofile": 4096}}, ("limits.ulimits.nofile", "4096", "4 to 2048")),
    ({"tmp": "1g"}, ("limits.tmp", str(GIB), "limits.memory")),
])  # fmt: skip
def test_a_users_number_above_the_machine_is_refused(
    limits: dict[str, Any], words: tuple[str, ...]
) -> None:
    """The message names field, value and allowed range."""
    with pytest.raises(InvalidSpecError) as caught:
        resolve(spec(limits=limits), SMALL)
    for word in words:
        assert word in str(caught.value)
    assert caught.value.context["fields"] == [words[0]]


@pytest.mark.parametrize("cpuset", ["0", "0-1", "1"])
def test_a_cpuset_of_this_machine_is_granted(cpuset: str) -> None:
    assert resolve(spec(limits={"cpuset": cpuset}), SMALL).limits.cpuset == cpuset
    ceiling = Ceiling.parse({"limits": {"cpuset": "0-1"}})
    asked = spec(limits={"cpuset": cpuset})
    assert resolve(asked, SMALL, ceiling=ceiling).limits.cpuset == cpuset
    assert resolve(spec(), SMALL, ceiling=ceiling).limits.cpuset == "0-1"


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InvalidSpecError) as caught:
        resolve(spec(limits={"memory": "9g", "cpus": 9}), SMALL)
    assert caught.value.context["fields"] == ["limits.memory", "limits.cpus"]


RELAXED = [
    ({"user": "root"}, "user"),
    ({"user": "0:1000"}, "user"),
    ({"user": "000"}, "user"),
    ({"security": {"read_only_root": False}}, "security.read_only_root"),
    ({"security": {"capabilities": ["CHOWN"]}}, "security.capabilities"),
    ({"network": {"mode": "bridge"}}, "network.mode"),
]


@pytest.mark.parametrize(("fields", "field"), RELAXED)
@pytest.mark.parametrize("name", ["strict", "standard"])
def test_what_only_permissive_gives_is_denied_elsewhere(
    name: str, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(PolicyDeniedError, match="permissive") as caught:
        resolve(spec(profile=name, **fields), MACHINE)
    assert caught.value.context["fields"] == [field]


@pytest.mark.parametrize("fields", [fields for fields, _ in RELAXED])
def test_permissive_gives_it(fields: dict[str, Any]) -> None:
    asked = spec(profile="permissive", **fields)
    granted = resolve(asked, MACHINE)
    for part in fields:
        if part != "security":
            assert getattr(granted, part) == getattr(asked, part)
    if "security" in fields:
        for name in fields["security"]:
            assert getattr(granted.security, name) == getattr(asked.security, name)


@pytest.mark.parametrize(("name", "fields", "field"), [
    ("permissive", {"user": str(RESERVED_IDS[0])}, "user"),
    ("permissive", {"user": f"0{RESERVED_IDS[1]}"}, "user"),
    ("permissive", {"user": f"1005:{RESERVED_IDS[0]}"}, "user"),
    ("permissive", {"security": {"groups": [1007, RESERVED_IDS[1]]}}, "security.groups"),
    ("strict", {"security": {"seccomp": "standard"}}, "security.seccomp"),
    ("standard", {"security": {"seccomp": "permissive"}}, "security.seccomp"),
    ("strict", {"security": {"seccomp_allow": ["ptrace"]}}, "security.seccomp_allow"),
    ("permissive", {"security": {"seccomp_allow": ["bpf"]}}, "security.seccomp_allow"),
    ("strict", {"security": {"seccomp_allow": ["msget"]}}, "security.seccomp_allow"),
    ("strict", {"security": {"devices": ["/dev/fuse"]}}, "security.devices"),
])  # fmt: skip
def test_what_a_profile_never_gives(name: str, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(PolicyDeniedError) as caught:
        resolve(spec(profile=name, **fields), MACHINE)
    assert caught.value.context["fields"] == [field]


def test_a_syscall_that_is_none_gets_its_nearest_name() -> None:
    with pytest.raises(PolicyDeniedError, match="'msgget'"):
        resolve(spec(security={"seccomp_allow": ["msget"]}), MACHINE)


def test_own_paths_are_added_to_the_profiles() -> None:
    masked = resolve(spec(security={"masked_paths": ["/etc/hostname"]}), MACHINE)
    assert set(masked.security.masked_paths or ()) == {
        "/etc/hostname", *(PROFILES["strict"].security.masked_paths or ())
    }  # fmt: skip


def test_unlimited_is_a_ulimit_and_stays_what_was_asked() -> None:
    granted = resolve(spec(limits={"ulimits": {"stack": "unlimited"}}), MACHINE)
    assert granted.limits.ulimits.stack == Ulimits.parse({"stack": "unlimited"}).stack
    assert granted.limits != Limits()


def test_an_image_whose_user_is_no_user_is_refused() -> None:
    facts = dataclasses.replace(MACHINE, image=ImageFacts("sha256:1", user="a b"))
    with pytest.raises(InvalidSpecError, match="'a b'"):
        resolve(spec(), facts)


@pytest.mark.parametrize(
    ("name", "asked", "range_"),
    [
        ("nproc", 5001, "0 to 5000"),
        ("nproc", {"soft": 1, "hard": 5001}, "0 to 5000"),
        ("nofile", {"soft": 3, "hard": 100}, "4 to 2048"),
        ("stack", {"soft": 4096, "hard": "unlimited"}, "65536 to 9223372036854775807"),
        ("cpu", 0, "1 to 9223372036854775807"),
        ("rtprio", 1, "0 to 0"),
    ],
)
def test_ulimits_lie_between_what_a_command_needs_and_what_the_machine_gives(
    name: str, asked: object, range_: str
) -> None:
    """Soft and hard; else the first command would fail, and nobody could say of what."""
    facts = dataclasses.replace(SMALL, ulimits={"nproc": 5000, "rtprio": 0})
    limits = Limits.parse({"ulimits": {name: asked}})
    with pytest.raises(InvalidSpecError, match=rf"^limits\.ulimits\.{name}: .* of {range_}, "):
        resolve(SandboxSpec(limits=limits), facts)


def test_a_daemon_whose_own_runtime_is_gvisor_has_it_named() -> None:
    """Else the profile asks of it what it does not take, and its threads have no room in pids."""
    facts = dataclasses.replace(MACHINE, runtime="runsc")
    granted = resolve(SandboxSpec(), facts)
    assert (granted.security.runtime, granted.limits.ulimits.msgqueue) == ("runsc", None)
    chosen = resolve(SandboxSpec(security={"runtime": "runc"}), facts)
    assert chosen.security.runtime == "runc"
    assert chosen.limits.ulimits.msgqueue is not None
    assert resolve(SandboxSpec(), MACHINE).security.runtime is None


def test_a_profiles_ulimit_is_lowered_to_the_machines() -> None:
    """An ordinary user with little still gets a sandbox."""
    facts = dataclasses.replace(SMALL, ulimits={"memlock": 4096, "msgqueue": 0})
    ulimits = resolve(SandboxSpec(), facts).limits.ulimits
    assert (ulimits.memlock, ulimits.msgqueue) == (Ulimit.parse(4096), Ulimit.parse(0))


@pytest.mark.parametrize("name", PROFILES)
def test_a_soft_limit_stays_below_its_hard_one(name: str) -> None:
    """As it was asked for: a profile has the two alike."""
    asked = spec(profile=name, limits={"ulimits": {"nofile": {"soft": 100, "hard": 1000}}})
    nofile = resolve(asked, SMALL).limits.ulimits.nofile
    assert nofile is not None
    assert (nofile.soft, nofile.hard) == (100, 1000)


@pytest.mark.parametrize("name", PROFILES)
def test_where_no_program_may_run_from_tmp_none_does_unless_that_is_asked_for(name: str) -> None:
    """The ceiling takes it from a profile; who asks for it is told."""
    ceiling = Ceiling.parse({"security": {"tmp_exec": False}})
    assert resolve(spec(profile=name), SMALL, ceiling=ceiling).security.tmp_exec is False
    with pytest.raises(PolicyDeniedError, match="tmp_exec"):
        resolve(spec(profile=name, security={"tmp_exec": True}), SMALL, ceiling=ceiling)
