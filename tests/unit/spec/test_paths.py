"""What is in what, by names alone."""

import pytest

from ringfence.spec.paths import lies_in


@pytest.mark.parametrize(
    ("path", "place", "inside"),
    [
        ("/a/b", "/a/b", True),
        ("/a/b/c", "/a/b", True),
        ("a/b", "a", True),
        ("/a/bc", "/a/b", False),
        ("/a", "/a/b", False),
        ("/b/a", "/a", False),
        ("/a", "", True),
        ("/", "", True),
    ],
)
def test_a_path_lies_in_itself_and_in_what_is_above_it(path: str, place: str, inside: bool) -> None:
    assert lies_in(path, place) is inside
