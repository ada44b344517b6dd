"""Every Python example of README.md and the pages runs as it stands, after what the text around it
says is there. Where an image is named, the tests' own takes its place."""

import ast
import asyncio
import inspect
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.digest import Digest, Digester
from ringfence.digest.store import Store

from ..conftest import require_bwrap, require_docker, require_root
from ..images import DEBIAN

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
CONTENT = b"content"
_IMAGE = re.compile(r"python:3\.12-slim|debian:12")


def examples() -> dict[tuple[str, int], str]:
    """All examples by page and number."""
    return {
        (page.name, number): source
        for page in PAGES
        for number, source in enumerate(
            re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        )
    }


EXAMPLES = examples()


async def run(source: str, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run an example, which may await, with some names known; all names that it leaves."""
    names = {"__name__": "example", "ringfence": ringfence, **(known or {})}
    code = compile(source, "example", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    going = eval(code, names)
    if inspect.isawaitable(going):
        await going
    return names


class Enough(Exception):
    """An example that goes on for ever has printed something."""


def enough(*values: object) -> None:
    raise Enough


async def of_digests(source: str) -> None:
    stream, out = io.BytesIO(CONTENT), io.BytesIO()
    text = str(Digest.from_bytes(CONTENT))
    await run(
        source, {"text": text, "stream": stream, "size": len(CONTENT), "out": out, "shutil": shutil}
    )
    assert out.getvalue() == CONTENT


async def of_a_state(source: str) -> None:
    digester = Digester("sha256")
    digester.write(CONTENT)
    left = await run(
        source, {"digester": digester, "len_so_far": len(CONTENT), "Digester": Digester}
    )
    assert left["digester"] is not digester
    assert left["digester"].digest() == Digest.from_bytes(CONTENT)


async def of_categories(source: str) -> None:
    kind = (await run(source))["kind"]
    assert kind(ringfence.InvalidSpecError("x")).startswith("change the request")
    assert kind(ringfence.ResourceExhaustedError("x")) == "try again later"
    assert kind(ringfence.SandboxLostError("x")).startswith("the sandbox ended")
    assert kind(ringfence.GuestError("x")) == "give up"


async def of_a_sampler(source: str) -> None:
    require_root()
    require_bwrap()
    async with ringfence.open() as sandbox:
        pid = sandbox._context.instance.pid
        with pytest.raises(Enough):
            await run(source, {"pid": pid, "print": enough})


async def of_secrets(source: str) -> None:
    require_bwrap()
    async with ringfence.open(network=(await run(source))["network"]) as sandbox:
        assert "hidden" not in repr(sandbox.spec.network)


async def of_the_policy(source: str) -> None:
    require_docker(DEBIAN)
    opening = await run(f"opening = {source}")
    async with opening["opening"] as sandbox:
        assert (await sandbox.exec(["touch", "/usr/new"])).ok


async def of_a_store(source: str) -> None:
    digest, stream = Digest.from_bytes(CONTENT), io.BytesIO(CONTENT)
    source = source.replace("/var/lib/ringfence/store", "store")
    await run(source, {"digest": digest, "size": len(CONTENT), "source": stream})
    with Store("store").open(digest) as reader:
        assert reader.read() == CONTENT


async def of_a_blob(source: str) -> None:
    require_bwrap()
    project()
    async with ringfence.open(repository="project") as sandbox:
        await sandbox.files.write("/workspace/model.bin", CONTENT)
        left = await run(source, {"sandbox": sandbox, "store": Store("store")})
    assert left["moved"].digest == Digest.from_bytes(CONTENT)


async def of_a_workspace(source: str) -> None:
    require_docker(DEBIAN)
    os.chdir(project())
    await run(source, {"IMAGE": DEBIAN, "Repository": ringfence.Repository})
    assert (await program("-c", "print(open('fixed').read())")).startswith("yes")


async def with_a_sandbox(source: str) -> None:
    require_bwrap()
    require_docker(DEBIAN)
    os.chdir(project())
    await run(source, {"Repository": ringfence.Repository})


async def of_the_suite(source: str) -> None:
    """pytest finds all the checks, and runs one, of a backend that the text calls "mine"."""
    ours = source.replace('"mine"', '"mock"').replace(f', "image": "{DEBIAN}"', "")
    await write("test_mine.py", ours)
    args = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    listed = await program(*args, "--collect-only")
    assert listed.count("test_mine.py::TestMyBackend::test_") > 150
    assert "1 passed" in await program(*args, "-k", "test_exit_code_")


async def write(name: str, text: str) -> None:
    await asyncio.to_thread(Path(name).write_text, text)


async def program(*args: str) -> str:
    """What Python prints that ends with 0."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    told, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, told.decode()
    return told.decode()


RUNS: dict[tuple[str, int], Callable[[str], Awaitable[None]]] = {
    ("chorus.md", 0): with_a_sandbox,
    ("conformance.md", 0): of_the_suite,
    ("digest.md", 0): of_digests,
    ("digest.md", 1): of_a_state,
    ("errors.md", 0): of_categories,
    ("monitoring.md", 0): of_a_sampler,
    ("network.md", 0): with_a_sandbox,
    ("network.md", 1): of_secrets,
    ("network.md", 2): with_a_sandbox,
    ("policy.md", 0): of_the_policy,
    ("store.md", 0): of_a_store,
    ("store.md", 1): of_a_blob,
    ("workspace.md", 0): of_a_workspace,
}
ELSEWHERE = {
    ("README.md", 0): "integration/process/test_readme.py",
    ("conformance.md", 1): "conformance/test_docs.py",
    ("integrations.md", 0): "external/test_examples.py",
    ("integrations.md", 1): "external/test_examples.py",
}
"""Those that another test runs."""


def project() -> str:
    """A repository with a program that fixes it."""
    Path("project").mkdir()
    program = Path("project/fix-it")
    program.write_text("#!/bin/sh\necho yes >fixed\n")
    program.chmod(0o755)
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "begin"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@example"]
        subprocess.run(["git", "-C", "project", *who, *command], check=True)
    return "project"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """An empty directory, without the state directory."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def test_every_example_is_run_somewhere() -> None:
    """By its `main`, by the tests that it defines, by what stands here, or by another test."""
    known = RUNS.keys() | ELSEWHERE.keys()
    assert known <= EXAMPLES.keys()
    left = [
        name
        for name, source in EXAMPLES.items()
        if name not in known
        and not re.search(r"^async def (main|test_\w+)\(", source, re.MULTILINE)
    ]
    assert left == []
    for (page, _), where in ELSEWHERE.items():
        assert page in (ROOT / "tests" / where).read_text()


@pytest.mark.docker
@pytest.mark.process
@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in ELSEWHERE], ids=str)
async def test_an_example_runs_as_it_stands(
    name: tuple[str, int], here: Path, state_directory: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(here)
    source = _IMAGE.sub(DEBIAN, EXAMPLES[name])
    if name in RUNS:
        await RUNS[name](source)
        return
    require_root()
    require_bwrap()
    if DEBIAN in source:
        require_docker(DEBIAN)
    left = await run(source)
    steps = [step for at, step in left.items() if at == "main" or at.startswith("test_")]
    assert steps
    for step in steps:
        await asyncio.wait_for(step(), 120)
