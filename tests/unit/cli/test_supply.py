"""What the verbs of images say of a lock file that cannot be read."""

from pathlib import Path

import pytest

from ringfence.cli.supply import read_lock
from ringfence.errors import InvalidSpecError


def test_a_lock_file_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are InvalidSpecError with the file's name, not a traceback."""
    file = tmp_path / "ringfence.lock"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidSpecError, match=r"ringfence\.lock is no lock file: .*UTF-8"):
        read_lock(file)
