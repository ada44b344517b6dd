"""How the agent is compiled."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.guest import build
from tests.conftest import missing

SCRIPT = Path(build.__file__)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The build script beside a program that compiles faster than the agent."""
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "main.c").write_text("int main(void) { return BUILD[0] == 0; }\n")
    return Path(shutil.copy(SCRIPT, tmp_path / "build.py"))


def run(script: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-S", "-E", str(script), *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_it_builds_without_our_packages_and_only_when_it_must(copy: Path) -> None:
    if not build.compilers():
        missing("no C compiler: apt-get install gcc musl-tools")
    path = {"PATH": os.environ["PATH"]}
    first = run(copy, "--check", **path)
    assert first.returncode == 0, first.stderr
    (binary,) = (copy.parent / "bin").iterdir()
    assert binary.name == build.target().name
    assert binary.stat().st_mode & 0o777 == 0o711
    assert "ringfence-guest" in first.stdout
    made = binary.stat().st_mtime_ns
    assert run(copy, "--quiet", **path).stdout == ""
    assert binary.stat().st_mtime_ns == made
    changed = copy.parent / "agent" / "main.c"
    os.utime(changed, ns=(made + 10**9, made + 10**9))
    assert run(copy, "--quiet", **path).returncode == 0
    assert binary.stat().st_mtime_ns > made


def test_the_binary_needs_no_library(copy: Path) -> None:
    if not build.target().exists():
        missing("the guest is not built: python -m ringfence.guest.build")
    image = build.target().read_bytes()
    assert image.startswith(b"\x7fELF")
    assert b"ld-linux" not in image
    assert b"ld-musl" not in image


def test_without_a_compiler_it_names_all_three(copy: Path) -> None:
    done = run(copy, PATH="/nowhere")
    assert done.returncode == 1
    for name in ("musl-gcc", "cc that can", "ziglang"):
        assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_a_warning_fails_the_check(copy: Path) -> None:
    if not build.compilers():
        missing("no C compiler: apt-get install gcc musl-tools")
    (copy.parent / "agent" / "extra.c").write_text("static int unused(void) { return 1; }\n")
    done = run(copy, "--check", PATH=os.environ["PATH"])
    assert done.returncode == 1
    assert "unused" in done.stderr


def test_for_another_machine_without_ziglang_it_names_it(copy: Path) -> None:
    """The system's compilers are not asked for what they cannot make."""
    done = run(copy, "--machine", "riscv64", PATH=os.environ["PATH"])
    assert done.returncode == 1
    assert "riscv64" in done.stderr
    assert "ziglang" in done.stderr
    assert "musl-gcc" not in done.stderr
    assert not any((copy.parent / "bin").glob("ringfence-guest-*"))


def test_what_an_installer_made_readable_is_made_private(tmp_path: Path) -> None:
    binary = tmp_path / "guest"
    binary.write_bytes(b"x")
    binary.chmod(0o755)
    build.keep_private(binary)
    assert binary.stat().st_mode & 0o777 == build.MODE
    build.keep_private(tmp_path / "missing")
