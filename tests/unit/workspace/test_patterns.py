"""Patterns mean what they mean in .gitignore: git itself is asked."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.workspace.patterns import Patterns
from tests.unit.workspace.conftest import GIT, git

NAMES = ["a", "b", "ab", "a.c", "b.pyc", "x y", "foo", "#h"]
FILES = [
    "/".join(parts)
    for parts in (
        ["a"], ["ab"], ["a.c"], ["b.pyc"], ["foo", "a"], ["foo", "b.pyc"], ["foo", "ab", "a.c"],
        ["b", "foo", "a"], ["b", "a.c"], ["b", "ab", "foo", "x y"], ["x y"], ["#h"], ["b", "b"],
        [" a"], ["foo", "cab.c"], ["b", "foo", "b", "b", "foo", "a.c"], ["foo", "a[b", "aab"],
    )
]  # fmt: skip
PIECES = st.sampled_from(
    [
        "a",
        "b",
        "foo",
        "*",
        "**",
        "*.pyc",
        "a*",
        "?b",
        "[ab]",
        "[!a]",
        "a.c",
        "ab",
        "x y",
        "\\#h",
        " a",
        "a*c",
        "*b*",
        "*b",
        "*.?",
        "*a*b*",
        "*[!b]*?*c",
        "[!b]*",
        "*[]a]*",
        "*\\[*",
        "[[:alpha:]]*",
        "*[![:alnum:]][[:lower:]c]",
        "[[:punct:]]?",
        "*[[:space:][:digit:]-]*",
        "[[:bogus:]]",
        "[[:alpha]*",
        "a[[a]?",
        "[&&~~||a]",
        "\\[[:alpha:]]",
    ]
)
PATTERN = st.builds(
    lambda bang, root, parts, end: bang + root + "/".join(parts) + end,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(PIECES, min_size=1, max_size=5),
    st.sampled_from(["", "", "/"]),
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("patterns")
    git(root, "init", "-q")
    for file in FILES:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def ignored_by_us(lines: list[str]) -> set[str]:
    patterns = Patterns(lines)
    found = set()
    for file in FILES:
        names = file.split("/")
        for length in range(1, len(names) + 1):
            path = "/".join(names[:length])
            if patterns.verdict(path, names[length - 1], length < len(names)):
                found.add(file)
                break
    return found


def ignored_by_git(tree: Path, lines: list[str]) -> set[str]:
    (tree / ".gitignore").write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "check-ignore", "-z", "--stdin", "--no-index"],
        cwd=tree, env=GIT, input="\0".join(FILES).encode(), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return set(done.stdout.decode().split("\0")) - {""}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines=st.lists(PATTERN, min_size=1, max_size=4))
def test_patterns_agree_with_git(tree: Path, lines: list[str]) -> None:
    assert ignored_by_us(lines) == ignored_by_git(tree, lines)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "line",
    [
        "[[:alpha:]]",
        "[![:space:]]*",
        "[[:punct:]]?",
        "a[[a]?",
        "[[:bogus:]]",
        "[&&|a]",
        "[\\]a]",
        "[\\a]b",
        "[c\\-]*",
    ],
)
def test_a_set_has_the_classes_that_git_knows(tree: Path, line: str) -> None:
    found = ignored_by_us([line])
    assert found == ignored_by_git(tree, [line])
    assert bool(found) is ("bogus" not in line)


def test_names_with_newlines_match_as_any_other() -> None:
    patterns = Patterns(["*.key", "secret/"])
    assert patterns.verdict("a\nb/c.key", "c.key", False)
    assert patterns.verdict("a\n/secret", "secret", True)
    assert patterns.verdict("a.key\n", "a.key\n", False) is None


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 20 + "*b", "a" * 250),
        ("*[a]" * 20 + "*[!a]", "a" * 250),
        ("*?a" * 20 + "*b", "a" * 250),
        ("*a" * 20 + "*b/c", "a" * 250),
        ("**/a/" * 8 + "b", "a/" * 2000 + "a"),
        ("**/*a*/" * 8 + "b/", "a/" * 2000 + "a"),
        ("x/" + "**/a/" * 8 + "**", "x/" + "b/a/" * 1000 + "a"),
    ],
)
def test_no_pattern_of_a_repository_takes_time_in_a_power_of_the_path(
    pattern: str, path: str
) -> None:
    """Tried at each place for each wildcard, these would outlast the machine."""
    verdict = Patterns([pattern]).verdict(path, path.rpartition("/")[2], True)
    assert verdict is (True if pattern.startswith("x/") else None)


@pytest.mark.parametrize("pattern", ["[" * 100_000, "[[:" * 100_000, "[[:a:" * 100_000])
def test_no_pattern_of_a_repository_takes_time_in_a_power_of_its_own_length(pattern: str) -> None:
    """Looked for from each place in it again, the end of a set would outlast the machine."""
    assert not Patterns([pattern])


def test_a_pattern_that_means_nothing_is_passed_over() -> None:
    nothing = ["[a-\\]z]*", "[a-[:digit:]]", "[[:alpha:]", "a[", "[a\\"]
    patterns = Patterns([*nothing, "*.key"])
    assert patterns.verdict("c.key", "c.key", False)
    assert patterns.verdict("a", "a", False) is None
