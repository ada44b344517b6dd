"""Backends by name."""

import tomllib
from pathlib import Path

import pytest

from ringfence.backends import registry
from ringfence.errors import InvalidSpecError

PROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"


def test_our_own_are_the_entry_points_of_the_project() -> None:
    """They are loaded without a look at every installed package, and by the same names."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    assert project["entry-points"][registry.GROUP] == registry.OURS


def test_backends_of_others_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package's entry point is a backend's name."""

    class Point:
        name = "other"

        def load(self) -> type[dict[str, object]]:
            return dict

    monkeypatch.setattr(registry, "_points", lambda: (Point(),))
    assert registry.names() == ["docker", "mock", "other", "process"]
    assert registry.load("other", "there") == {"endpoint": "there"}  # type: ignore[comparison-overlap]


def test_an_unknown_name_is_told_with_those_that_are_installed() -> None:
    """What can be asked for stands in the message."""
    with pytest.raises(InvalidSpecError, match=r"'nosuch'; installed are docker, mock, process"):
        registry.load("nosuch")
