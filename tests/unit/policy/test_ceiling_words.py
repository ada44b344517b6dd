"""What is said of files that are not there: words, no errno's number."""

from pathlib import Path

import pytest

from ringfence.backends.docker.images import read_lock
from ringfence.errors import InvalidSpecError
from ringfence.policy import load_ceiling


def test_a_ceiling_and_a_lock_file_that_are_not_there_are_told_in_words(tmp_path: Path) -> None:
    for read in (load_ceiling, read_lock):
        with pytest.raises(InvalidSpecError, match="No such file") as caught:
            read(str(tmp_path / "missing"))
        assert "Errno" not in str(caught.value)
