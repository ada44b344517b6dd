"""Patterns over paths."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import InvalidSpecError
from ringfence.sandbox.globbing import Pattern


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/w/*", "/w/a", True),
        ("/w/*", "/w/a/b", False),
        ("/w/*", "/w/.a", False),
        ("/w/.*", "/w/.a", True),
        ("/w/**", "/w/a/b/c", True),
        ("/w/**", "/w/.a/b", False),
        ("/w/**/c", "/w/c", True),
        ("/w/**/c", "/w/a/b/c", True),
        ("/w/a*/**/*.py", "/w/ab/x/y.py", True),
        ("/w/[ab]", "/w/a", True),
        ("/w/[!ab]", "/w/a", False),
        ("/w/[a-c]?", "/w/bz", True),
        ("/w/[]a]", "/w/]", True),
        ("/w/[!]a]", "/w/]", False),
        ("/w/[!]a]", "/w/b", True),
        ("/./w/*", "/./w/a", True),
        ("/*/b", "/a/b", True),
        ("/w/a[", "/w/a[", True),
        ("/w/a.b", "/w/axb", False),
        ("/w/*\n", "/w/x\n", True),
    ],
)
def test_matching(pattern: str, path: str, matches: bool) -> None:
    """As in a shell, with ** across directories."""
    assert Pattern(pattern).matches(path) is matches


@pytest.mark.parametrize(
    ("pattern", "base", "depth"),
    [("/*", "/", 1), ("/w/*/x", "/w", 2), ("/w/a/", "/w/a", 0), ("/w/*/**/x", "/w", None)],
)
def test_how_deep_it_reaches(pattern: str, base: str, depth: int | None) -> None:
    """Nobody looks at what lies deeper; ** reaches everything."""
    assert (Pattern(pattern).base, Pattern(pattern).depth) == (base, depth)


@pytest.mark.parametrize("pattern", ["", "a", "*.py", "/a\0"])
def test_what_is_no_pattern(pattern: str) -> None:
    """Not absolute, or with a NUL, is InvalidSpecError."""
    with pytest.raises(InvalidSpecError):
        Pattern(pattern)


@given(st.text(alphabet="ab*?[]!-^\\./", max_size=12))
def test_no_pattern_breaks_it(text: str) -> None:
    """Anything is a pattern or InvalidSpecError, never an error of the regex."""
    try:
        found = Pattern("/w/" + text)
    except InvalidSpecError:
        return
    assert re.fullmatch(r"/[^*?]*", found.base)
    found.matches(found.base + "/x")
