"""The project's own files say what its targets do, and its public names have types."""

import os
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

USE = '''
"""A client of the public interface, as a user would type it."""

import ringfence
from ringfence import ExecResult, Repository, SandboxSpec, Usage, sync


async def main(spec: SandboxSpec) -> bytes:
    async with ringfence.open(spec, limits={"memory": "1GiB"}, lifetime="1h") as sandbox:
        result: ExecResult = await sandbox.exec(["true"], timeout="5m", env={"A": None})
        async with sandbox.spawn(["cat"], pty=True) as process:
            await process.write(b"x")
            async for chunk in process.stdout:
                print(chunk.decode())
        files: ringfence.Files = sandbox.files
        await files.write("/tmp/x", "text")
        changes: ringfence.Changes = await sandbox.workspace.changes()
        print([change.path for change in changes])
        usage: Usage = await sandbox.usage()
        sandbox.network.allow(["pypi.org"])
        print(result.check().usage.max_rss, usage.memory, sandbox.receipt.gaps)
        return await sandbox.workspace.patch()


async def others() -> None:
    found = await ringfence.run(["true"], repository=Repository(path="."))
    print(found.result.ok, found.receipt["seccomp"].enforced)
    async with ringfence.pool(SandboxSpec(), size=2) as pool, pool.acquire() as member:
        await member.exec(shell="true")
    for info in await ringfence.list_sandboxes(labels={"a": "b"}):
        await ringfence.delete_sandbox(info.id)
    async for name, usage in ringfence.usages():
        print(name, usage.memory)


def blocking() -> str:
    with sync.open(image="busybox") as sandbox:
        code: int | None = sandbox.exec(["true"]).exit_code
        data: bytes = sandbox.files.read("/etc/passwd")
        port: int = sandbox.network.ports[8000]
        return f"{code}{port}{data!r}{[info.id for info in sync.list_sandboxes()]}"
'''
WRONG = """
import ringfence


async def main() -> None:
    async with ringfence.open() as sandbox:
        sandbox.exce(["true"])
        await sandbox.exec(["true"], timeout=[1])
    ringfence.opne()
    ringfence.sync.open().exce(["true"])
"""


def mypy(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "pyproject.toml", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def test_the_public_interface_has_types_for_strict_users(tmp_path: Path) -> None:
    """mypy --strict accepts a client, and finds a wrong name and a wrong type."""
    (tmp_path / "use.py").write_text(USE)
    done = mypy(tmp_path / "use.py")
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "wrong.py").write_text(WRONG)
    done = mypy(tmp_path / "wrong.py")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count('"exce"') == 2
    assert '"opne"' in done.stdout
    assert "arg-type" in done.stdout


def test_the_package_says_that_it_is_typed_and_what_it_needs() -> None:
    assert (ROOT / "src" / "ringfence" / "py.typed").exists()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    assert project["license"] == "Apache-2.0"
    assert set(project["entry-points"]["ringfence.backends"]) == {"docker", "process", "mock"}


def test_the_versions_of_python_that_are_named_are_those_that_were_run() -> None:
    """docs/backends.md says what was run with each; a preview is no promise."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    text = (ROOT / "docs" / "backends.md").read_text().partition("## What it was run with")[2]
    run = re.findall(r"^\| [^|]+ \| (3\.\d+) \|", text, re.MULTILINE)
    assert named
    assert set(named) <= set(run)
    assert named[0] == project["requires-python"].removeprefix(">=")


@pytest.mark.parametrize(
    "name",
    ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "Makefile"],
)
def test_a_project_has_its_papers(name: str) -> None:
    assert (ROOT / name).stat().st_size > 200


def test_every_target_runs_programs_that_exist() -> None:
    """What a target of the Makefile names below scripts/ is there and can be executed."""
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    assert {"demo", "check", "test", "test-short", "soak", "bench"} <= set(targets)
    programs = set(re.findall(r"\bscripts/[\w.]+", makefile))
    assert programs
    for program in programs:
        assert (ROOT / program).is_file(), program
        assert program.endswith(".py") or os.access(ROOT / program, os.X_OK), program


def test_ci_runs_check_and_test() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert re.findall(r"^make (\w+)$", script, re.MULTILINE) == ["check", "test"]
    assert "CI=" in script


def test_it_is_a_program_for_python_as_well() -> None:
    """`python -m ringfence` is the command, where its script is not in PATH."""
    command = [sys.executable, "-m", "ringfence", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: ringfence" in done.stdout


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Any:
    """hatch_build.py's hook for a wheel; hatchling itself is only where wheels are built."""
    interface = types.ModuleType("hatchling.builders.hooks.plugin.interface")
    vars(interface)["BuildHookInterface"] = type("BuildHookInterface", (), {"target_name": "wheel"})
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    found: dict[str, Any] = {"__name__": "hatch_build"}
    exec((ROOT / "hatch_build.py").read_text(), found)
    return found["GuestBuildHook"]()


def test_where_no_compiler_is_the_build_brings_one(
    hook: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`pip install .` works on a machine without gcc; a fake one shows when it is left out."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hook.dependencies() == ["ziglang"]
    (tmp_path / "musl-gcc").touch(0o755)
    assert hook.dependencies() == []
    monkeypatch.setenv("RINGFENCE_WHEEL_MACHINE", "another")
    assert hook.dependencies() == ["ziglang"]
