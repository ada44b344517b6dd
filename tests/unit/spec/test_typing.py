"""What a type checker says of a user's program: mypy --strict on a snippet of one."""

import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.spec import Limits, Ulimit, Ulimits

ROOT = Path(__file__).resolve().parents[3]

GOOD = """
from typing import assert_type

import ringfence
from ringfence import FileEvent, FileInfo, Limits, Ulimits, Usage, sync

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


async def main() -> None:
    async with ringfence.open(limits=Limits(memory="128m"), lifetime="1h") as sandbox:
        assert_type(sandbox.spec.limits.memory, int | None)
"""

BAD = """
from ringfence import Limits

Limits(memory=[])
Limits(memry="128m")
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
    assert done.stdout.count("error:") == 2, done.stdout


def test_a_type_checker_is_told_of_every_field() -> None:
    """The signature that it reads stands beside the fields, in the same order."""
    source = (ROOT / "src/ringfence/spec/limits.py").read_text()
    for model in (Ulimits, Limits):
        body = source.partition(f"class {model.__name__}(Model)")[2].partition("def __init__(")[2]
        signature = body.partition(") -> None")[0]
        told = [line.partition(":")[0].strip() for line in signature.splitlines() if ":" in line]
        assert told == list(model.model_fields)
    assert Ulimits(nofile=10).nofile == Ulimit(soft=10, hard=10)
