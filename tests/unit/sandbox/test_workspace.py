"""What is told where there is no room for what a workspace hands out."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import PathNotFoundError, ResourceExhaustedError
from ringfence.sandbox.workspace import Workspace


class Failing:
    """A prepared workspace whose patch cannot be had."""

    directory = Path("/state/workspaces/one")

    def __init__(self, error: Exception) -> None:
        self.error = error

    def patch(self, **how: Any) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "free space for the state directory"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "ulimit -n"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
    ],
)
async def test_what_has_run_out_is_named_with_the_workspace(error: Exception, words: str) -> None:
    workspace: Any = Failing(error)
    with pytest.raises(ResourceExhaustedError, match=f"/state/workspaces/one: .*{words}"):
        await Workspace(workspace).patch()


@pytest.mark.parametrize("error", [PathNotFoundError("gone"), OSError(5, "broken"), KeyError("x")])
async def test_what_is_no_lack_stays_what_it_is(error: Exception) -> None:
    workspace: Any = Failing(error)
    with pytest.raises(type(error)) as caught:
        await Workspace(workspace).patch()
    assert caught.value is error
