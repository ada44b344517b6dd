"""The Docker backend with gVisor's kernel: commands, processes, files, trees, what holds it in."""

from typing import Any, ClassVar

import pytest

from ringfence.testing.commands import CommandChecks
from ringfence.testing.confinement import ConfinementChecks
from ringfence.testing.files import FileChecks
from ringfence.testing.measuring import MeasuringChecks
from ringfence.testing.processes import ProcessChecks
from ringfence.testing.trees import TreeChecks

from ..conftest import require_gvisor
from ..images import DEBIAN

pytestmark = [pytest.mark.docker, pytest.mark.gvisor]


class TestGvisor(
    CommandChecks, ProcessChecks, MeasuringChecks, FileChecks, TreeChecks, ConfinementChecks
):
    exempt: ClassVar[dict[str, str]] = {
        "test_memory_is_limited": "at the limit the whole sandbox ends, not one command",
        "test_processes_are_limited": "at the limit the whole sandbox ends, not one command",
        "test_holes_count_as_content": "its file system says that holes occupy space",
    }

    @pytest.fixture(scope="class")
    @classmethod
    def spec_kwargs(cls) -> dict[str, Any]:
        require_gvisor()
        # Its kernel is a process of the sandbox, with threads that count.
        limits = {"pids": 4096, "memory": "1GiB"}
        return {"image": DEBIAN, "security": {"runtime": "runsc"}, "limits": limits}
