import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose path fits into a socket's address."""
    path = Path(tempfile.mkdtemp(prefix="rf"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
