"""A command line becomes the spec that it says, or an error that names the option."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ringfence.cli.described import make_spec
from ringfence.cli.options import PARAMETERS
from ringfence.cli.pairs import pair
from ringfence.errors import InvalidSpecError
from ringfence.spec import Limits, SandboxSpec


def spec_of(**given: Any) -> SandboxSpec:
    values: dict[str, Any] = {parameter.name: None for parameter in PARAMETERS}
    return make_spec({**values, **given})


def test_nothing_given_is_the_default_spec() -> None:
    assert spec_of() == SandboxSpec()


def test_every_option_reaches_its_field() -> None:
    spec = spec_of(
        image="debian", profile="standard", user="1000", cwd="/tmp", lifetime="1h", memory="64MiB",
        cpus=0.5, pids=9, tmp="1MiB", output_limit="1k", ulimit=["nofile=10:20", "core=0"],
        env=["A=b=c"], label=["task=7"], mount=["/usr:/data", "/opt:/opt2:rw"], publish=["8000", "81:80"],
        repo="/src", repo_mode="ro", include=["*.py"], exclude=["x"], runtime="runsc",
        allow_degraded="memory, pids",
    )  # fmt: skip
    assert spec.image == "debian"
    assert spec.limits.memory == 64 << 20
    assert (spec.limits.cpus, spec.limits.pids, spec.limits.output) == (0.5, 9, 1024)
    assert spec.limits.ulimits.nofile is not None
    assert (spec.limits.ulimits.nofile.soft, spec.limits.ulimits.nofile.hard) == (10, 20)
    assert dict(spec.env) == {"A": "b=c"}
    assert dict(spec.labels) == {"task": "7"}
    assert [(one.source, one.destination, one.read_only) for one in spec.mounts] == [
        ("/usr", "/data", True),
        ("/opt", "/opt2", False),
    ]
    assert [(port.inside, port.host) for port in spec.network.ports] == [(8000, 0), (80, 81)]
    assert spec.repository is not None
    assert (spec.repository.path, spec.repository.mode) == ("/src", "ro")
    assert spec.security.runtime == "runsc"
    assert set(spec.security.allow_degraded) == {"memory", "pids"}


def test_allowing_a_host_asks_for_the_proxy() -> None:
    spec = spec_of(allow=["example.com:8443"])
    assert spec.network.mode == "proxy"
    assert (spec.network.allow[0].host, spec.network.allow[0].ports) == ("example.com", (8443,))


def test_a_variable_by_name_alone_that_is_not_set_here_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RF_TEST_VALUE", raising=False)
    with pytest.raises(InvalidSpecError, match="not set here"):
        spec_of(env=["RF_TEST_VALUE"])


def test_a_variable_by_name_alone_takes_our_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RF_TEST_VALUE", "x")
    assert dict(spec_of(env=["RF_TEST_VALUE"]).env) == {"RF_TEST_VALUE": "x"}


def test_nothing_of_our_environment_goes_along() -> None:
    assert os.environ
    assert dict(spec_of(env=["A=1"]).env) == {"A": "1"}


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_options_go_on_top_of_a_spec_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"spec.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps({"image": "a", "limits": {"memory": "1GiB", "pids": 7}}))
    else:
        path.write_text('image = "a"\n[limits]\nmemory = "1GiB"\npids = 7\n')
    spec = spec_of(spec=path, memory="64MiB")
    assert (spec.image, spec.limits.memory, spec.limits.pids) == ("a", 64 << 20, 7)


def test_options_go_on_top_of_a_repository_that_is_a_path_alone(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text('repository = "/src"\n')
    repository = spec_of(spec=path, exclude=["x"]).repository
    assert repository is not None
    assert (repository.path, repository.exclude) == ("/src", ("x",))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"env": ["=x"]}, "env"),
        ({"env": ["NOT_SET_ANYWHERE"]}, "--env"),
        ({"mount": ["/x"]}, "--mount"),
        ({"mount": [":/x"]}, "--mount"),
        ({"mount": ["/x:/y:rx"]}, "--mount"),
        ({"mount": ["/x:/y:"]}, "--mount"),
        ({"mount": ["/x:/y:ro:rw"]}, "--mount"),
        ({"mount": ["/x:"]}, "destination"),
        ({"publish": ["http"]}, "--publish"),
        ({"publish": [":80"]}, "--publish"),
        ({"publish": ["80:"]}, "--publish"),
        ({"publish": ["80:80:80"]}, "--publish"),
        ({"publish": ["-80"]}, "--publish"),
        ({"publish": ["٣"]}, "--publish"),
        ({"publish": ["9" * 5000]}, "--publish"),
        ({"publish": ["65536"]}, "network.ports"),
        ({"ulimit": ["nofile"]}, "--ulimit"),
        ({"ulimit": ["nofile=a"]}, "--ulimit"),
        ({"ulimit": ["nofyle=1"]}, "nofyle"),
        ({"memory": "12parsecs"}, "limits.memory"),
        ({"network": "open"}, "network.mode"),
        ({"label": ["x"]}, "--label"),
        ({"repo_mode": "ro"}, "--repo-mode: say of what repository, with --repo"),
        ({"include": ["*.py"]}, "--include: say of what repository"),
        ({"spec": Path("/nonexistent.toml")}, "--spec"),
        ({"spec": Path("-")}, "standard input is the command's"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSpecError, match=said):
        spec_of(**given)


def test_a_broken_spec_file_is_named_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text("image = \n")
    with pytest.raises(InvalidSpecError, match="line 1"):
        spec_of(spec=path)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("deep.json", b"[" * 100_000, "nested too deep"),
        ("deep.toml", b"a = " + b"[" * 100_000, "nested too deep"),
        ("twice.json", b'{"limits": {"pids": 1, "pids": 2}}', "'pids' is there twice"),
        ("twice.toml", b"[limits]\npids = 1\npids = 2\n", "is not toml"),
        ("latin.toml", b'image = "\xff"\n', "is not toml"),
        ("latin.json", b'{"image": "\xff"}', "is not json"),
        ("number.json", b'{"limits": {"pids": ' + b"9" * 5000 + b"}}", "is not json"),
        ("large.toml", b"#" * ((1 << 20) + 1), r"^--spec \S+: a spec has at most 1 MiB$"),
    ],
)
def test_a_spec_file_that_nobody_would_write_is_refused_by_name(
    name: str, data: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InvalidSpecError, match=said):
        spec_of(spec=path)


@pytest.mark.parametrize("repository", [{"mode": "ro"}, 3, ["x"]])
def test_a_repository_that_is_none_in_a_spec_file_is_named_by_its_field(
    repository: Any, tmp_path: Path
) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"repository": repository}))
    with pytest.raises(InvalidSpecError, match="repository"):
        spec_of(spec=path)


def test_every_limit_has_an_option() -> None:
    given = {"memory": "64m", "swap": "1m", "cpus": 0.5, "cpuset": "0", "cpu_shares": 512, "pids": 9,
             "disk": "8m", "tmp": "1m", "shm": "2m", "read_rate": "3m", "write_rate": "4m",
             "network_rate": "5m", "cpu_time": "1m"}  # fmt: skip
    limits = spec_of(**given, run_size="6m", output_limit="1k", ulimit=["core=0"]).limits
    assert limits == Limits.parse({**given, "run": "6m", "output": "1k", "ulimits": {"core": 0}})
    named = {*Limits.model_fields} - {"timeout", "ulimits", "run", "output"}
    assert named == set(given), "a new limit needs its option"


@pytest.mark.parametrize(
    ("text", "inherit", "found"),
    [
        ("HERE=b=c", True, ("HERE", "b=c")),
        ("HERE=", True, ("HERE", "")),
        ("HERE=b", False, ("HERE", "b")),
        ("HERE", True, ("HERE", "ours")),
        ("HERE", False, "write NAME=VALUE"),
        ("ABSENT", True, "is not set here"),
    ],
)
def test_a_name_alone_takes_our_value_where_it_may(
    monkeypatch: pytest.MonkeyPatch, text: str, inherit: bool, found: tuple[str, str] | str
) -> None:
    monkeypatch.setenv("HERE", "ours")
    monkeypatch.delenv("ABSENT", raising=False)
    if isinstance(found, tuple):
        assert pair(text, "--env", inherit=inherit) == found
        return
    with pytest.raises(InvalidSpecError, match=found) as caught:
        pair(text, "--env", inherit=inherit)
    assert caught.value.op == "usage"
    assert f"--env '{text}'" in str(caught.value)


def test_of_an_option_that_is_there_twice_each_counts_where_there_may_be_many() -> None:
    given = {"label": ["a=1", "b=2", "a=3"], "env": ["A=1", "B=2"], "publish": ["80", "81"]}
    spec = spec_of(**given)
    assert (spec.labels, spec.env) == ({"a": "3", "b": "2"}, {"A": "1", "B": "2"})
    assert [port.inside for port in spec.network.ports] == [80, 81]
