"""What a type checker says of a user's program: mypy --strict on a snippet of one."""

import ast
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pydantic
import pytest

from ringfence.policy import Ceiling
from ringfence.spec import SandboxSpec, Ulimit, Ulimits
from ringfence.spec.model import Model

ROOT = Path(__file__).resolve().parents[3]

GOOD = """
from pathlib import Path
from typing import assert_type

import ringfence
from ringfence.policy import Ceiling
from ringfence.policy.ceiling import NetworkCeiling, SecurityCeiling
from ringfence import (FileEvent, FileInfo, Limits, Mount, Network, Port, Repository, Rule,
    SandboxSpec, Secret, Security, Ulimit, Ulimits, Usage, sync)

limits = Limits(memory="128m", swap=0, cpus=1, pids=9, disk="1g", tmp="1m", shm="1m", run="1m",
    read_rate="1m", write_rate="1m", network_rate="1m", cpu_time="5m", timeout="5m", output="1k",
    cpuset="0", cpu_shares=2, ulimits=Ulimits(nofile=10, stack="unlimited"))
assert_type(limits.memory, int | None)
assert_type(limits.timeout, float | None)
Limits(memory=1 << 30, timeout=1.5, ulimits={"nofile": 10})


def blocking() -> None:
    with sync.open() as sandbox:
        walk = sandbox.files.walk("/")
        assert_type(next(walk), FileInfo)
        walk.close()
        with sandbox.stats(1) as usages:
            assert_type([usage for usage in usages], list[Usage])
        with sandbox.spawn(["true"]) as process:
            process.stdout.lines().close()
            process.stdout.close()
        with sandbox.files.watch("/") as events:
            assert_type(next(events), FileEvent)
            events.close()

rules: list[str] = ["pypi.org"]
network = Network(mode="proxy", allow=["host:443", Rule(host="a.b", ports=[1])],
    secrets=[Secret(host="host", value="s3cret")], ports=[8000, Port(inside=1)])
assert_type(network.allow, tuple[Rule, ...])
assert_type(network.secrets[0].value.get_secret_value(), str)
Network(mode="proxy", allow=rules, ports=(8000,), secrets=[{"host": "pypi.org", "value": "x"}])
Network(mode="proxy", allow=[{"host": "a.b"}])
Network(mode="proxy", allow=[Rule(host="a.b")])
Network(mode="proxy", allow=("a.b", Rule(host="c.d")))
Network(mode="bridge", dns=["1.1.1.1"], dns_search=["a.b"], dns_options=["ndots:2"])
repository = Repository(path=".", size="1g", include=["*.py"], exclude=("x",), owner=1000,
    git={"user_name": "A"})
assert_type(repository.size, int | None)
assert_type(repository.include, tuple[str, ...])
security = Security(tmpfs={"/cache": "64m"}, capabilities={"CHOWN"}, groups=[7],
    seccomp_allow=["mount"], masked_paths=["/a"], devices=["/dev/fuse"], allow_degraded=["pids"])
assert_type(security.capabilities, tuple[str, ...] | None)
spec = SandboxSpec(lifetime="1h", idle_timeout="5m", user=1000, repository=repository,
    lock=Path("ringfence.lock"), limits={"memory": "1g"}, security=security, network=network,
    mounts=[Mount(source="/a", destination="/b"), {"source": "/c", "destination": "/d"}])
assert_type(spec.lifetime, float | None)
assert_type(spec.user, str | None)
SandboxSpec(repository=Path("."), mounts=[Mount(source=Path("/a"), destination="/b")])
SandboxSpec(repository="https://host/repository.git")
Repository(path=Path("."))
SandboxSpec(lifetime=60, repository={"path": "."}, limits=limits)
Ulimit(soft=1, hard="unlimited")
Ceiling(lifetime="1d", images=["python:*"], limits={"memory": "1g"}, profiles=["strict"],
    mounts=["/srv"], network=NetworkCeiling(allow=[".pypi.org"], modes=["none", "proxy"]),
    repository_modes=["copy"], security=SecurityCeiling(capabilities=["CHOWN"], devices=[]))


async def main() -> None:
    async with ringfence.open(limits=Limits(memory="128m"), lifetime="1h") as sandbox:
        assert_type(sandbox.spec.limits.memory, int | None)
        with Path("log").open("wb") as log:
            await sandbox.exec(["true"], on_stdout=log.write, on_stderr=bytearray().extend)
    await ringfence.open(repository={"path": "."}, mounts=[{"source": "/a", "destination": "/b"}])
"""

BAD = """
from ringfence import Limits, Network, Repository, SandboxSpec

Limits(memory=[])
Limits(memry="128m")
SandboxSpec(lifetime=[])
SandboxSpec(lifetme="1h")
Repository(size="1g")
Repository(path=".", include="*.py")
Network(allow=1)
"""


def mypy(tmp_path: Path, source: str) -> subprocess.CompletedProcess[str]:
    program = tmp_path / "program.py"
    program.write_text(source)
    settings = tmp_path / "mypy.ini"
    settings.write_text(
        f"[mypy]\nstrict = true\nmypy_path = {ROOT / 'src'}\nfollow_imports = silent\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", settings, "--cache-dir", tmp_path / "cache", program],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )  # fmt: skip


@pytest.mark.timeout(600)
def test_a_type_checker_takes_texts_for_sizes_and_durations(tmp_path: Path) -> None:
    """And knows that what is granted is a number."""
    done = mypy(tmp_path, GOOD)
    assert done.returncode == 0, done.stdout
    done = mypy(tmp_path, BAD)
    assert done.stdout.count("error:") == len(BAD.strip().splitlines()) - 2, done.stdout


def models() -> list[type[Model]]:
    found = [model for model in Model.__subclasses__() if model.__module__.startswith("ringfence.")]
    assert SandboxSpec in found
    assert Ceiling in found
    return found


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_a_type_checker_is_told_of_every_field(model: type[Model]) -> None:
    """The signature that it reads stands beside the fields, in the same order; without one it takes
    what the fields themselves are, which must be all that is taken."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(model)))
    told = [
        node.args
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    ]
    if told:
        assert [one.arg for one in told[0].kwonlyargs] == list(model.model_fields)
        return
    for name, field in model.model_fields.items():
        assert field.annotation in (str, bool, int, Mapping[str, str]), f"{name} may be coerced"
        assert not any(isinstance(one, pydantic.BeforeValidator) for one in field.metadata)


def test_one_number_is_both_limits() -> None:
    assert Ulimits(nofile=10).nofile == Ulimit(soft=10, hard=10)
