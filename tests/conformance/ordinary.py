"""The suite on the process backend of an ordinary user, run as one by test_process_user.py.

    python -m tests.conformance.ordinary UID DIRECTORY

The interpreter may be out of that user's reach. So it runs the suite on the mock first, as root,
which loads all that is needed, and then becomes the user for good.
"""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.ledger import guard
from ringfence.testing import SandboxConformance
from tests.conformance import test_mock
from tests.integration.process.conftest import UNLIMITED
from tests.integration.process.ordinary import LOADED, become

ROOT = Path(__file__).resolve().parents[2]


class TestMockFirst(test_mock.TestMock):
    pass


class TestProcessUser(SandboxConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def spec_kwargs(cls) -> dict[str, Any]:
        return {"backend": "process", "security": {"allow_degraded": UNLIMITED}}


class Ordinary:
    """The plugin that changes the user before the first check of TestProcessUser."""

    def __init__(self, uid: int, directory: Path) -> None:
        self.uid = uid
        self.directory = directory

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if os.geteuid() == 0 and item.getparent(pytest.Class).name == "TestProcessUser":
            for name in ringfence.__all__:
                getattr(ringfence, name)
            guard.missing = lambda directory: None
            os.chown(self.directory / "tmp", self.uid, self.uid)
            become(self.uid, self.directory)
            (self.directory / "state").mkdir(mode=0o711)


def main() -> int:
    assert LOADED
    directory = Path(sys.argv[2])
    sys.path.insert(0, str(ROOT))
    os.chdir(directory)  # pytest goes back to where it began, and the clone may be root's alone
    plugins = ["cacheprovider", "hypothesispytest", "xdist"]
    off = [word for name in plugins for word in ("-p", f"no:{name}")]
    where = [f"--rootdir={ROOT}", "-c", f"{ROOT}/pyproject.toml", f"--basetemp={directory}/tmp"]
    args = ["-q", "-x", *off, *where, str(Path(__file__).resolve())]
    return int(pytest.main(args, plugins=[Ordinary(int(sys.argv[1]), directory)]))


if __name__ == "__main__":
    sys.exit(main())
