"""The examples of docs/integrations.md run as they stand, on the tests' own image."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import eval as evaluate
from inspect_ai.solver import solver
from inspect_ai.util import sandbox

from .conftest import IMAGE, require

PAGE = Path(__file__).parents[2] / "docs/integrations.md"


def examples(kind: str) -> list[str]:
    text = PAGE.read_text().replace("python:3.12-slim", IMAGE)
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(source, "example", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is the working directory."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def test_the_example_for_inspect(here: Path) -> None:
    """Its task's sandbox is as the config beside it says; the model is left out."""
    require("docker")
    [config], [of_inspect, _] = examples("toml"), examples("python")
    (here / "ringfence.toml").write_text(config)
    told = []

    @solver
    def look() -> Any:
        async def solve(state: Any, generate: Any) -> Any:
            told.append(
                (await sandbox().exec(["sh", "-c", "echo here >a; cat a; ulimit -n"])).stdout
            )
            return state

        return solve

    task = run(of_inspect)["solve"]()
    [log] = evaluate(task, model="mockllm/model", solver=look(), display="none", log_dir="logs")
    assert log.status == "success", log.error
    assert told == ["here\n1024\n"]


def test_the_example_for_deep_agents(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("docker")
    subprocess.run(["git", "init", "-q"], check=True)
    (here / "file").write_text("x")
    run(examples("python")[1])
    assert capsys.readouterr().out.startswith("Python 3.")
