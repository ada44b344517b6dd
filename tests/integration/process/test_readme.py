"""What the README shows works as it is written there, in a directory of somebody's own."""

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import require_bwrap, require_root

pytestmark = pytest.mark.process
README = Path(__file__).resolve().parents[3] / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(kind: str) -> list[str]:
    return [body for found, body in BLOCK.findall(README.read_text()) if found == kind]


@pytest.fixture
def project(tmp_path: Path, state_directory: Path) -> Path:
    """A directory to work on, owned by who runs the tests."""
    require_bwrap()
    require_root()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README").write_text("a project\n")
    return tmp_path / "project"


def run(words: list[str], project: Path) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_library_s_example_runs_and_leaves_the_project_alone(project: Path) -> None:
    [program] = blocks("python")
    out = run(["-c", program], project)
    assert out.startswith("0 exited ")
    assert "\n+done\n" in out
    assert "no_new_privileges" in out
    assert [path.name for path in project.iterdir()] == ["README"]


def test_the_commands_that_need_no_docker_print_what_is_shown(project: Path) -> None:
    """Those of `ringfence run` without an image; a line below one that is no command is its output."""
    lines = [*blocks("console")[0].splitlines(), "$ end"]
    ran = 0
    for line, after in itertools.pairwise(lines):
        if not line.startswith("$ ringfence run"):
            continue
        words = shlex.split(line.removeprefix("$ ringfence"), comments=True)
        out = run(["-m", "ringfence", *words], project)
        assert out == ("" if after.startswith("$") else f"{after}\n")
        ran += 1
    assert ran == 2
    assert b"+done\n" in (project / "out.patch").read_bytes()
