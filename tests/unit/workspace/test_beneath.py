"""What is below a directory is reached and removed without ever leaving it."""

import os
from pathlib import Path

import pytest

from ringfence.workspace.beneath import DIRECTORY_FLAGS, remove_tree
from tests.conftest import require_root

UID = 61236


def as_user(uid: int, directory: int, name: str) -> int:
    """The exit status of a child that becomes `uid` and removes `name`."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            remove_tree(directory, name)
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("below", ["work", "work/deeper", "work/deeper/still"])
def test_an_empty_directory_of_root_s_goes_with_its_owner_s_tree(
    tmp_path: Path, below: str
) -> None:
    """As a mounted overlay leaves one in its work directory."""
    require_root()
    (tmp_path / "tree" / below).mkdir(parents=True)
    for path in (tmp_path, tmp_path / "tree", *(tmp_path / "tree").rglob("*")):
        os.chown(path, UID, UID)
    (tmp_path / "tree" / below / "work").mkdir(mode=0)
    directory = os.open(tmp_path, DIRECTORY_FLAGS)
    try:
        assert as_user(UID, directory, "tree") == 0
    finally:
        os.close(directory)
    assert list(tmp_path.iterdir()) == []
