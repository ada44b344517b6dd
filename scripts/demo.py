"""A real library's own test suite, in a hardened sandbox and outside, side by side.

The source distribution and its test dependencies come from the package index; inside there is no
network at all.
"""

import asyncio
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ringfence
from ringfence import ExecResult, Mount, Receipt, Repository

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "demo"
LIBRARY = "packaging==24.1"
# Python 3.11.3 and older have no filters.
SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
DEPENDENCIES = ("pytest==8.3.4", "pretend==1.0.9")
COMMAND = (
    "python3",
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:cacheprovider",
    "-c",
    "pyproject.toml",
    "tests",
)
IMAGE = "ringfence-test/debian"
DEPS = "/opt/deps"
_COUNTS = re.compile(r"(\d+) (passed|failed|skipped|xfailed|xpassed|error|errors|deselected)")


def main() -> int:
    """Run the suite twice and compare; 0 when all counts are equal."""
    source, dependencies = fetch()
    print(f"{LIBRARY}: its own tests in a sandbox ({IMAGE}, strict, no network)\n", flush=True)
    inside, seconds, receipt = asyncio.run(run_inside(source, dependencies, sys.stdout.write))
    print("\nand the same outside\n", flush=True)
    started = time.monotonic()
    outside = run_outside(source, dependencies)
    elsewhere = time.monotonic() - started
    counts = counted(inside.stdout.decode("utf-8", "replace")), counted(outside)
    print("\nwhat was enforced, as read back from the kernel and the runtime:\n")
    print(receipt)
    print(f"\n{'':12}{'in the sandbox':>16}{'outside':>16}")
    for word in sorted({*counts[0], *counts[1]}):
        print(f"{word:12}{counts[0].get(word, 0):>16}{counts[1].get(word, 0):>16}")
    print(f"{'seconds':12}{seconds:>16.1f}{elsewhere:>16.1f}")
    print(f"{'peak memory':12}{inside.usage.max_rss / 2**20:>12.0f} MiB")
    same = counts[0] == counts[1] and inside.exit_code == 0
    print("\nthe counts are equal" if same else "\nTHE COUNTS DIFFER")
    return 0 if same else 1


def fetch() -> tuple[Path, Path]:
    """The library's unpacked source and a directory of its test dependencies; kept in .cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    name, version = LIBRARY.split("==")
    source, dependencies = CACHE / f"{name}-{version}", CACHE / "deps"
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    if not source.is_dir():
        download = [
            *pip,
            "download",
            "--no-deps",
            "--no-binary",
            ":all:",
            "-d",
            str(CACHE),
            LIBRARY,
        ]
        archived = CACHE / f"{name}-{version}.tar.gz"
        if not archived.exists():
            subprocess.run(download, check=True)
        with tarfile.open(archived) as archive:
            archive.extractall(CACHE, **SAFELY)
    if not (dependencies / "pretend.py").exists():
        only = ["--only-binary", ":all:", "--target", str(dependencies)]
        subprocess.run(
            [*pip, "install", *only, *DEPENDENCIES], check=True, stderr=subprocess.DEVNULL
        )
    return source, dependencies


async def run_inside(
    source: Path, dependencies: Path, show: Callable[[str], object]
) -> tuple[ExecResult, float, Receipt]:
    """The suite in a sandbox; its output is shown as it comes. Result, seconds, receipt."""
    async with ringfence.open(
        image=IMAGE,
        repository=Repository(path=str(source)),
        mounts=(Mount(source=str(dependencies), destination=DEPS),),
        env={"PYTHONPATH": f"/workspace/src:{DEPS}", "PYTHONDONTWRITEBYTECODE": "1"},
        user="1000",
    ) as sandbox:
        started = time.monotonic()
        result = await sandbox.exec(
            COMMAND, timeout=600, on_stdout=lambda data: show(data.decode("utf-8", "replace"))
        )
        assert sandbox.receipt is not None
        return result, time.monotonic() - started, sandbox.receipt


def run_outside(source: Path, dependencies: Path) -> str:
    """The suite on this machine; its output."""
    env = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": f"{source / 'src'}:{dependencies}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
    }
    command = [sys.executable, *COMMAND[1:]]
    done = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True, check=False)
    print(done.stdout[-400:])
    return done.stdout


def counted(output: str) -> dict[str, int]:
    """The counts of pytest's last line."""
    lines = [line for line in output.splitlines() if _COUNTS.search(line)]
    return {word: int(count) for count, word in _COUNTS.findall(lines[-1])} if lines else {}


if __name__ == "__main__":
    sys.exit(main())
