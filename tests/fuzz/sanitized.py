"""The agent's sources compiled with the sanitizers, so that a wrong access ends the program."""

import os
import shutil
import subprocess
from pathlib import Path

from ringfence.guest import build
from tests.conftest import missing

FLAGS = ["-std=gnu11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
"""The leak check needs ptrace, which an undumpable process refuses."""
HARNESS = Path(__file__).with_name("agent_fuzz.c")
CORPUS = Path(__file__).with_name("corpus")
_PLAYED = (
    "job_give",
    "supervisor_tell",
    "supervisor_free",
    "supervisor_dismiss",
    "supervisors_renew",
    "pool_refill",
    "fork",
)
"""Functions that the harness plays itself."""


def _compile(sources: list[Path], output: Path, *extra: str) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        missing("no C compiler: apt-get install gcc")
    command = [str(compiler), *FLAGS, *extra, f"-I{build.SOURCES}", '-DBUILD="sanitized"']
    done = subprocess.run(
        [*command, *map(str, sources), "-o", str(output)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and "cannot find -l" in done.stderr:
        missing(f"the compiler has no sanitizers: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return output


def guest(directory: Path) -> Path:
    """The guest."""
    return _compile(build.sources(), directory / "guest")


def fuzzer(directory: Path) -> Path:
    """The fuzzing harness."""
    wrapped = [f"-Wl,--wrap={name}" for name in _PLAYED]
    sources = [*build.sources(), HARNESS]
    return _compile(sources, directory / "agent_fuzz", "-Dmain=agent_main", *wrapped)


def fuzz(program: Path, directory: Path, seed: int, count: int) -> str:
    """Run `count` inputs in `directory`, which is made; the harness's last line."""
    files = directory / "dir"
    files.mkdir(parents=True)
    (files / "file").write_bytes(b"content")
    for path in (directory, files, files / "file"):
        os.chown(path, 65534, 65534)
    command = [str(program), str(CORPUS), str(directory), str(seed), str(count)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-5000:]}"
    return done.stderr.strip().splitlines()[-1]
