"""A working directory in a spec is a text or a path object."""

from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from ringfence.errors import InvalidSpecError
from ringfence.spec import SandboxSpec


@pytest.mark.parametrize("cwd", [PurePosixPath("/srv/x"), Path("/srv/x"), "/srv/x"])
def test_a_path_object_is_kept_as_text(cwd: Any) -> None:
    assert SandboxSpec(cwd=cwd).cwd == "/srv/x"


@pytest.mark.parametrize("cwd", [b"/srv", 5, ["/srv"]])
def test_anything_else_is_refused_by_name(cwd: Any) -> None:
    """Bytes too, which a text would be made of in silence."""
    with pytest.raises(InvalidSpecError, match=r"^cwd: ") as caught:
        SandboxSpec.parse({"cwd": cwd})
    assert caught.value.context["fields"] == ["cwd"]
