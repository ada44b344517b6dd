"""A command line loads what its verb needs: most of what a short one costs is loading."""

import inspect
import json
import subprocess
import sys

import pytest

from ringfence.cli import verbs

_SEEN = """
import json, sys
sys.argv = ["ringfence", *json.loads(sys.argv[1])]
from ringfence.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
sys.stderr.write(json.dumps(sorted(sys.modules)))
"""


def loaded(*words: str) -> set[str]:
    """The modules that a command line has loaded at its end."""
    ended = subprocess.run(
        [sys.executable, "-c", _SEEN, json.dumps(words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return set(json.loads(ended.stderr.splitlines()[-1]))


def test_every_verb_is_where_the_table_says() -> None:
    """A name and its module are found when they are asked for, not before."""
    for modules in verbs.PANELS.values():
        for name, module in modules.items():
            assert inspect.isfunction(verbs.verb(name, module))
    assert all(verbs.group(name).registered_commands for name in verbs.GROUPS)


def test_help_needs_no_models() -> None:
    """The verbs are described without what they work with."""
    assert not loaded("--help") & {"pydantic", "aiohttp", "ringfence.spec", "sqlite3"}
    assert "ringfence.spec" not in loaded("run", "--help")


@pytest.mark.parametrize("words", [("ps",), ("policy", "show")])
def test_a_verb_loads_no_other(words: tuple[str, ...], state_directory: object) -> None:
    """Nor what only another one shows."""
    modules = loaded(*words)
    assert f"ringfence.cli.{words[0]}" in modules
    assert not modules & {"ringfence.cli.run", "ringfence.cli.doctor", "rich", "aiohttp"}


def test_a_plain_sandbox_loads_no_part_that_it_does_not_have(state_directory: object) -> None:
    """No repository, no snapshot, no proxy, no other backend."""
    modules = loaded("run", "--backend", "mock", "--", "true")
    assert not unused_of(modules)


UNUSED = (
    "aiohttp",
    "pathspec",
    "rich",
    "tomllib",
    "ringfence.backends.docker",
    "ringfence.digest.store",
    "ringfence.images",
    "ringfence.ledger.reaper",
    "ringfence.network",
    "ringfence.sandbox.reopening",
    "ringfence.sandbox.snapshots",
    "ringfence.workspace",
)
"""What a run without a repository, an image and a network does without."""


def unused_of(modules: set[str]) -> list[str]:
    """Those of UNUSED that were loaded."""
    return sorted(
        module
        for module in modules
        if any(module == name or module.startswith(f"{name}.") for name in UNUSED)
    )
