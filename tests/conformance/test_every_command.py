"""Every command line of README.md and the pages is run, one page after the other, where what it names
is there. Where an image is named, the tests' own takes its place."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import require_bwrap, require_docker, require_root
from ..images import BUSYBOX, DEBIAN
from .test_every_example import PAGES, project

_LINE = re.compile(r"^(?:    |\$ )?(ringfence (?!\w+-)[a-z].*)$", re.MULTILINE)
_SAID = re.compile(r"   .*")
"""What a page says of a command beside it."""
_STANDS_FOR = (
    (re.compile(r"python:3\.12(-slim)?"), DEBIAN),
    (re.compile(r"debian:12"), BUSYBOX),
    (re.compile(r"\bFILE\b"), "ceiling.toml"),
    (re.compile(r"\bID\b"), "$ID"),
)
_PULLS = re.compile(r"ringfence image pull")
"""Not run: only a registry elsewhere has what these name."""


def commands(page: Path) -> list[str]:
    text = re.sub(r"^```sh\n.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [_SAID.sub("", line) for line in _LINE.findall(text) if not _PULLS.match(line)]


SHOWN = {page.name: commands(page) for page in PAGES if commands(page)}


def block(page: str, kind: str) -> str:
    [path] = [path for path in PAGES if path.name == page]
    found = re.search(rf"^```{kind}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def shell(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run by bash, where `ringfence` is the one of this Python."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


@pytest.fixture
def here(tmp_path: Path, state_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, which is the working directory, with the files that the pages name."""
    require_root()
    require_bwrap()
    require_docker(DEBIAN, BUSYBOX)
    monkeypatch.chdir(tmp_path)
    place = tmp_path / project()
    monkeypatch.chdir(place)
    (place / "task.toml").write_text(block("cli.md", "toml").replace("python:3.12-slim", DEBIAN))
    (place / "ceiling.toml").write_text(block("policy.md", "toml"))
    return place


def with_what_is_here(line: str) -> str:
    for pattern, stands in _STANDS_FOR:
        line = pattern.sub(stands, line)
    return line


@pytest.mark.docker
@pytest.mark.process
@pytest.mark.parametrize("page", SHOWN)
def test_the_commands_of_a_page_run(page: str, here: Path) -> None:
    """None is refused, and none fails for Ringfence's own part."""
    made = ""
    if any("ID" in line for line in SHOWN[page]):
        made = shell("ringfence create --lifetime 5m --repo .").stdout.strip()
        assert re.fullmatch(r"[0-9a-f]{12}", made)
    for line in SHOWN[page]:
        done = shell(with_what_is_here(line), ID=made)
        assert done.returncode not in (2, 125), (line, done.stderr)
    if made:
        assert shell(f"ringfence rm {made}").returncode == 0


@pytest.mark.process
@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("true", ""),
        ("sleep 60", "out of time\n"),
        ("exit 3", "exited\n"),
        ("kill -9 $$PPID", "out of memory, or killed\n"),
    ],
)
def test_the_script_of_the_recipes_tells_how_a_task_ended(here: Path, rule: str, says: str) -> None:
    """docs/recipes.md: make ends with 2 for what failed in it, but for a timeout of the whole."""
    (here / "task.toml").write_text('[limits]\ntimeout = "2s"\n')
    (here / "Makefile").write_text(f"test:\n\t@{rule}\n")
    done = shell(block("recipes.md", "sh"), TOKEN="sesame")
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert "sesame" not in (here / "result.json").read_text()
