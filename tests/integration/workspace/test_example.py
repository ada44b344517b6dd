"""The example of the round trip does what it says, on a library from the package index."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

from tests.integration.workspace.conftest import opened_on

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "fix_a_bug.py"


@pytest.mark.docker
async def test_fix_a_bug(tmp_path: Path, state_directory: Path) -> None:
    where = opened_on("docker")
    found = importlib.util.spec_from_file_location("fix_a_bug", EXAMPLE)
    assert found is not None
    assert found.loader is not None
    example = importlib.util.module_from_spec(found)
    found.loader.exec_module(example)
    try:
        source = example.fetch(tmp_path)
    except subprocess.CalledProcessError:
        pytest.skip("the package index does not answer")
    text = (source / "src/packaging/utils.py").read_bytes()
    example.break_it(source)
    assert (source / "src/packaging/utils.py").read_bytes() != text
    patch = await example.mend(source, where)
    assert b'+_canonicalize_regex = re.compile(r"[-_.]+")\n' in patch
    assert (source / "src/packaging/utils.py").read_bytes() == text
