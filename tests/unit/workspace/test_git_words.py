"""What git says is a line of text in an error, whatever ends its lines."""

import pytest

from ringfence.errors import StateError
from ringfence.workspace import isolated


@pytest.mark.parametrize("between", [b"\n", b"\r\n", b"\r"])
def test_line_ends_of_git_are_not_shown_as_escapes(between: bytes) -> None:
    with pytest.raises(StateError) as caught:
        isolated._check(["fetch"], 128, b"remote: no" + between + b"fatal: gone\r\n")
    assert str(caught.value) == "git fetch failed: remote: no; fatal: gone"
