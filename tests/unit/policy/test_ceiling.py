"""No request gets more than the operator's ceiling, nor more than it asked for."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ringfence
from ringfence.errors import InvalidSpecError, PolicyDeniedError
from ringfence.policy import PROFILES, Ceiling, Facts, check_ceiling, load_ceiling, resolve
from ringfence.spec import Limits, SandboxSpec, Ulimits
from ringfence.spec.limits import MOST_OUTPUT, cores
from ringfence.spec.names import GRANTABLE
from ringfence.spec.network import covers

MACHINE = Facts(memory=2**33, cpus=4, nofile=100000)
MIB = 2**20

_NUMBERS: dict[str, st.SearchStrategy[Any]] = {
    "memory": st.integers(6 * MIB, 2**34),
    "swap": st.integers(0, 2**31),
    "cpus": st.floats(0.01, 6, allow_nan=False),
    "cpu_shares": st.integers(2, 262144),
    "pids": st.integers(1, 5000),
    "disk": st.integers(1, 2**40),
    "tmp": st.integers(4096, 2**31),
    "shm": st.integers(4096, 2**31),
    "run": st.integers(4096, 2**31),
    "read_rate": st.integers(1, 2**31),
    "write_rate": st.integers(1, 2**31),
    "network_rate": st.integers(1, 2**31),
    "cpu_time": st.floats(1, 10000, allow_nan=False),
    "timeout": st.floats(1, 10000, allow_nan=False),
    "output": st.integers(1, MOST_OUTPUT),
    "cpuset": st.sampled_from(["0", "0-1", "2,3", "0-3", "5"]),
}
_ULIMITS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(Ulimits.model_fields, st.integers(0, 2**20))
)
_LIMITS = st.fixed_dictionaries({}, optional={**_NUMBERS, "ulimits": _ULIMITS})
_HOSTS = st.sampled_from(["pypi.org", "files.pypi.org", ".pypi.org", "example.com", ".org"])
_RULES = st.lists(
    st.fixed_dictionaries({"host": _HOSTS, "ports": st.sampled_from([(80,), (443,), (80, 443)])}),
    max_size=2,
)
_CAPABILITIES = st.lists(st.sampled_from(sorted(GRANTABLE)), max_size=3)
_CALLS = st.lists(st.sampled_from(["msgget", "vmsplice", "ptrace", "kcmp"]), max_size=2)


def _network(mode: str, rules: list[Any]) -> dict[str, Any]:
    return {"mode": mode, "allow": rules if mode == "proxy" else []}


REQUESTS = st.fixed_dictionaries(
    {"profile": st.sampled_from(list(PROFILES))},
    optional={
        "image": st.sampled_from(["python:3.12", "debian"]),
        "user": st.sampled_from(["root", "1000", "app"]),
        "lifetime": st.floats(1, 1e6),
        "idle_timeout": st.floats(1, 1e6),
        "limits": _LIMITS,
        "network": st.builds(_network, st.sampled_from(["none", "proxy", "bridge"]), _RULES),
        "repository": st.fixed_dictionaries(
            {"path": st.just("/r"), "mode": st.sampled_from(["copy", "ro", "rw"])}
        ),
        "mounts": st.lists(
            st.fixed_dictionaries({
                "source": st.sampled_from(["/nowhere/data", "/nowhere/data/x", "/nowhere/other"]),
                "destination": st.just("/data"),
                "read_only": st.booleans(),
            }),
            max_size=1,
        ),
        "security": st.fixed_dictionaries({}, optional={
            "read_only_root": st.booleans(),
            "capabilities": _CAPABILITIES,
            "seccomp": st.sampled_from([*PROFILES, "/x.json"]),
            "seccomp_allow": _CALLS,
            "devices": st.lists(st.sampled_from(["/dev/fuse", "/dev/kvm"]), max_size=1),
            "tmp_exec": st.booleans(),
            "runtime": st.sampled_from(["runc", "runsc"]),
            "allow_degraded": st.lists(st.sampled_from(["seccomp", "apparmor"]), max_size=1),
        }),
    },
)  # fmt: skip
CEILINGS = st.fixed_dictionaries({}, optional={
    "profiles": st.sampled_from([["strict"], ["strict", "standard"], list(PROFILES)]),
    "images": st.sampled_from([["python:*"], ["*"]]),
    "limits": _LIMITS,
    "lifetime": st.floats(1, 1e6),
    "idle_timeout": st.floats(1, 1e6),
    "repository_modes": st.sampled_from([["copy"], ["copy", "ro"], []]),
    "mounts": st.sampled_from([["/nowhere/data"], []]),
    "writable_mounts": st.booleans(),
    "network": st.fixed_dictionaries({}, optional={
        "modes": st.sampled_from([["none"], ["none", "proxy"]]),
        "allow": _RULES,
    }),
    "security": st.fixed_dictionaries({}, optional={
        "root": st.booleans(),
        "writable_root": st.booleans(),
        "capabilities": _CAPABILITIES,
        "seccomp_allow": _CALLS,
        "seccomp_files": st.booleans(),
        "tmp_exec": st.booleans(),
        "devices": st.sampled_from([["/dev/fuse"], []]),
        "runtimes": st.sampled_from([["runsc"], []]),
        "allow_degraded": st.sampled_from([["apparmor"], []]),
    }),
})  # fmt: skip


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(REQUESTS, CEILINGS)
def test_resolve_only_narrows(request: dict[str, Any], most: dict[str, Any]) -> None:
    """For any request and any ceiling: refused, or within both in every field."""
    asked = SandboxSpec.parse(request)
    ceiling = Ceiling.parse(most)
    try:
        granted = resolve(asked, MACHINE, ceiling=ceiling)
    except (InvalidSpecError, PolicyDeniedError):
        return
    _within_the_request(asked, granted)
    _within_the_ceiling(granted, ceiling)


def _within_the_request(asked: SandboxSpec, granted: SandboxSpec) -> None:
    for name in Limits.model_fields:
        wanted = getattr(asked.limits, name)
        if name != "ulimits" and wanted is not None:
            assert getattr(granted.limits, name) == wanted, name
    for name in Ulimits.model_fields:
        pair = getattr(asked.limits.ulimits, name)
        assert pair is None or getattr(granted.limits.ulimits, name) == pair
    base = PROFILES[asked.profile].security
    security = granted.security
    assert set(security.capabilities or ()) == set(asked.security.capabilities or ())
    assert security.read_only_root in (True, asked.security.read_only_root)
    assert not security.tmp_exec or asked.security.tmp_exec or base.tmp_exec
    assert set(base.masked_paths or ()) <= set(security.masked_paths or ())
    assert granted.network == asked.network
    assert asked.user is None or granted.user == asked.user


def test_a_ceiling_allows_what_there_is_only() -> None:
    """A slip of the pen would refuse everybody the control that was meant."""
    with pytest.raises(InvalidSpecError, match=r"security\.allow_degraded: 'memroy' is no control"):
        Ceiling.parse({"security": {"allow_degraded": ["memroy"]}})
    most = Ceiling.parse({"security": {"allow_degraded": ["memory", "tmpfs /x"]}}).security
    assert most.allow_degraded == ("memory", "tmpfs /x")


def _within_the_ceiling(granted: SandboxSpec, ceiling: Ceiling) -> None:
    _numbers_within(granted, ceiling)
    security, most = granted.security, ceiling.security
    assert granted.profile in ceiling.profiles
    assert granted.image is None or ceiling.permits_image(granted.image)
    assert most.root or granted.user != "root"
    assert most.writable_root or security.read_only_root
    assert most.tmp_exec or not security.tmp_exec
    assert most.seccomp_files or "/" not in (security.seccomp or "")
    for name in ("capabilities", "seccomp_allow", "devices", "allow_degraded"):
        allowed = getattr(most, name)
        assert allowed is None or set(getattr(security, name)) <= set(allowed), name
    assert most.runtimes is None or security.runtime in (None, *most.runtimes)
    assert granted.network.mode in ceiling.network.modes
    for rule in granted.network.allow if ceiling.network.allow is not None else ():
        assert any(
            covers(cap.host, rule.host) and set(rule.ports) <= set(cap.ports)
            for cap in ceiling.network.allow or ()
        )
    if granted.repository is not None:
        assert granted.repository.mode in ceiling.repository_modes
    for mount in granted.mounts:
        assert ceiling.permits_mount(mount.source)
        assert mount.read_only or ceiling.writable_mounts


def _numbers_within(granted: SandboxSpec, ceiling: Ceiling) -> None:
    for name in Limits.model_fields:
        cap = getattr(ceiling.limits, name)
        if name == "cpuset" and cap is not None:
            assert cores(granted.limits.cpuset or "") <= cores(cap)
        elif name != "ulimits" and cap is not None:
            assert getattr(granted.limits, name) <= cap, name
    for name in Ulimits.model_fields:
        cap = getattr(ceiling.limits.ulimits, name)
        pair = getattr(granted.limits.ulimits, name)
        assert cap is None or pair.hard <= cap.hard
    for name in ("lifetime", "idle_timeout"):
        cap = getattr(ceiling, name)
        assert cap is None or getattr(granted, name) <= cap
    assert (granted.limits.memory or 0) <= MACHINE.memory
    assert (granted.limits.cpus or 0) <= MACHINE.cpus


def test_the_profiles_numbers_are_lowered_and_the_users_are_refused() -> None:
    ceiling = Ceiling.parse({"limits": {"memory": "256m", "cpu_time": "1m"}})
    granted = resolve(SandboxSpec(), MACHINE, ceiling=ceiling)
    assert granted.limits.memory == 256 * MIB
    assert granted.limits.cpu_time == 60.0
    with pytest.raises(PolicyDeniedError, match=r"limits\.memory: 314572800 .* 268435456"):
        resolve(SandboxSpec.parse({"limits": {"memory": "300m"}}), MACHINE, ceiling=ceiling)


@pytest.mark.parametrize(("text", "words"), [
    ("profiles = [", ("ceiling.toml",)),
    ("profiles = []", ("profiles",)),
    ('profiles = ["strikt"]', ("profiles.0", "strikt")),
    ("[limts]\nmemory = 1", ("limts", "'limits'")),
    ('[limits]\nmemory = "1q"', ("limits.memory", "1q")),
    ('[limits]\nmemory = "1m"', ("limits.memory", "denies every request")),
    ('[network]\nmodes = ["proxy"]', ("network.modes", "denies every request")),
    ('[network]\nmodes = ["host"]', ("network.modes", "host")),
    ("images = []", ("images", "denies every image")),
    ('[security]\ncapabilities = ["SYS_ADMIN"]', ("security.capabilities", "SYS_ADMIN")),
    ('mounts = ["data"]', ("mounts", "data")),
])  # fmt: skip
def test_a_bad_ceiling_is_refused_by_file_field_and_value(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    path = tmp_path / "ceiling.toml"
    path.write_text(text)
    with pytest.raises(InvalidSpecError) as caught:
        load_ceiling(path)
    for word in ("ceiling.toml", *words):
        assert word in str(caught.value)


def test_a_ceiling_comes_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "ceiling.toml"
    path.write_text('profiles = ["strict"]\nlifetime = "1h"\n[limits]\ncpus = 0.5\n')
    granted = resolve(SandboxSpec(), MACHINE, ceiling=load_ceiling(path))
    assert (granted.lifetime, granted.limits.cpus) == (3600.0, 0.5)
    with pytest.raises(InvalidSpecError, match=r"missing\.toml"):
        load_ceiling(tmp_path / "missing.toml")


async def test_the_machines_ceiling_holds_for_whoever_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ceiling.toml"
    path.write_text('profiles = ["strict"]\n')
    monkeypatch.setenv("RINGFENCE_CEILING", str(path))
    with pytest.raises(PolicyDeniedError, match="profile"):
        async with ringfence.open(backend="mock", profile="standard"):
            pass
    async with ringfence.open(backend="mock", profile="standard", ceiling=Ceiling()) as sandbox:
        assert sandbox.spec.profile == "standard"
    monkeypatch.setenv("RINGFENCE_CEILING", str(tmp_path / "missing.toml"))
    with pytest.raises(InvalidSpecError, match=r"missing\.toml"):
        async with ringfence.open(backend="mock"):
            pass


def test_a_mount_is_judged_by_where_it_really_leads(tmp_path: Path) -> None:
    """A link inside an allowed directory does not carry out of it."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    ceiling = Ceiling.parse({"mounts": [str(inside)]})
    mount = {"source": str(inside / "link"), "destination": "/data"}
    with pytest.raises(PolicyDeniedError, match=r"mounts\.0"):
        resolve(SandboxSpec.parse({"mounts": [mount]}), MACHINE, ceiling=ceiling)


IMAGE = {"image": "python:3.12"}
SECRET = {"host": "a.test", "value": "x", "tls": False}
PROXY = {"mode": "proxy", "allow": ["a.test:443"]}


@pytest.mark.parametrize(
    ("most", "asked", "within", "named"),
    [
        ({"profiles": ["strict"]}, {"profile": "standard"}, {"profile": "strict"}, "profile"),
        ({"images": ["python:*"]}, {"image": "debian:12"}, IMAGE, "image"),
        ({"images": ["python:3"]}, {"image": "python:*"}, {"image": "python:3"}, "image"),
        ({"detached": False}, {"detached": True, "lifetime": 60}, {"lifetime": 60}, "detached"),
        ({"lifetime": 60}, {"lifetime": 61}, {"lifetime": 60}, "lifetime"),
        ({"idle_timeout": 60}, {"idle_timeout": 61}, {"idle_timeout": 60}, "idle_timeout"),
        (
            {"repository_modes": ["copy"]},
            {"repository": {"path": "/r", "mode": "ro"}},
            {"repository": {"path": "/r", "mode": "copy"}},
            "repository.mode",
        ),
        (
            {"mounts": ["/nowhere/a"]},
            {"mounts": [{"source": "/nowhere/ab", "destination": "/data"}]},
            {"mounts": [{"source": "/nowhere/a/b", "destination": "/data"}]},
            "mounts.0",
        ),
        (
            {"writable_mounts": False},
            {"mounts": [{"source": "/nowhere", "destination": "/data", "read_only": False}]},
            {"mounts": [{"source": "/nowhere", "destination": "/data"}]},
            "mounts.0",
        ),
        (
            {"security": {"root": False}},
            {"profile": "permissive", "user": "0:1000"},
            {"profile": "permissive", "user": "1000:0"},
            "user",
        ),
        (
            {"security": {"writable_root": False}},
            {"profile": "permissive", "security": {"read_only_root": False}},
            {"profile": "permissive", "security": {"read_only_root": True}},
            "security.read_only_root",
        ),
        (
            {"security": {"tmp_exec": False}},
            {"security": {"tmp_exec": True}},
            {"security": {"tmp_exec": False}},
            "security.tmp_exec",
        ),
        (
            {"security": {"seccomp_files": False}},
            {"security": {"seccomp": "/nowhere/own.json"}},
            {"security": {"seccomp": "strict"}},
            "security.seccomp",
        ),
        (
            {"security": {"capabilities": ["CHOWN"]}},
            {"profile": "permissive", "security": {"capabilities": ["CHOWN", "SETUID"]}},
            {"profile": "permissive", "security": {"capabilities": ["CHOWN"]}},
            "security.capabilities",
        ),
        (
            {"security": {"runtimes": ["runsc"]}},
            {"security": {"runtime": "runc"}},
            {"security": {"runtime": "runsc"}},
            "security.runtime",
        ),
        (
            {"security": {"allow_degraded": ["memory"]}},
            {"security": {"allow_degraded": ["memory", "pids"]}},
            {"security": {"allow_degraded": ["memory"]}},
            "security.allow_degraded",
        ),
        ({"limits": {"cpuset": "0-1"}}, {"limits": {"cpuset": "1-2"}},
         {"limits": {"cpuset": "1"}}, "limits.cpuset"),
        ({"network": {"modes": ["none"]}}, {"network": PROXY}, {}, "network.mode"),
        (
            {"network": {"allow": ["a.test:443"]}},
            {"network": {"mode": "proxy", "allow": ["a.test:8443"]}},
            {"network": PROXY},
            "network.allow",
        ),
        (
            {"network": {"allow": ["a.test:443"]}},
            {"network": {"mode": "proxy", "allow": ["b.a.test:443"]}},
            {"network": PROXY},
            "network.allow",
        ),
        ({"network": {"allow": []}}, {"network": PROXY}, {"network": {"mode": "proxy"}},
         "network.allow"),
        (
            {"network": {"secrets": False}},
            {"network": {**PROXY, "secrets": [SECRET]}},
            {"network": PROXY},
            "network.secrets",
        ),
        ({"network": {"ports": False}}, {"network": {"ports": [8000]}}, {}, "network.ports"),
    ],
)  # fmt: skip
def test_what_is_above_one_word_of_a_ceiling_is_refused_by_its_name(
    most: dict[str, Any], asked: dict[str, Any], within: dict[str, Any], named: str
) -> None:
    """And not narrowed without a word; what is within it is granted."""
    ceiling = Ceiling.parse(most)
    resolve(SandboxSpec.parse(asked), MACHINE)
    with pytest.raises(PolicyDeniedError) as caught:
        resolve(SandboxSpec.parse(asked), MACHINE, ceiling=ceiling)
    assert str(caught.value).startswith(f"{named}: ")
    resolve(SandboxSpec.parse(within), MACHINE, ceiling=ceiling)


def test_what_is_as_high_as_the_ceiling_is_within_it() -> None:
    check_ceiling("lifetime", 60.0, 60.0, op="extend")
    with pytest.raises(PolicyDeniedError, match=r"lifetime: 60\.5 is outside of 0 to 60"):
        check_ceiling("lifetime", 60.5, 60.0, op="extend")
