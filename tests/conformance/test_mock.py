"""The mock passes the suite, but for what needs a kernel: so it cannot lie to those who use it."""

from typing import Any, ClassVar

import pytest

from ringfence.backends.mock import MockBackend
from ringfence.testing import SandboxConformance

_KERNEL = "a mock has no kernel"
_SHELL = "the mock's shell has no background jobs"


class TestMock(SandboxConformance):
    exempt: ClassVar[dict[str, str]] = {
        "test_children_do_not_hold_up_the_result": _SHELL,
        "test_a_fifo_is_refused_at_once": _KERNEL,
        "test_special_files_stay_inside": _KERNEL,
        "test_holes_count_as_content": _KERNEL,
        "test_commands_have_no_privileges": _KERNEL,
        "test_there_is_only_a_loopback": _KERNEL,
        "test_few_processes_are_seen": _KERNEL,
        "test_escapees_do_not_outlive_a_timeout": _KERNEL,
    }

    @pytest.fixture(scope="class")
    @classmethod
    def spec_kwargs(cls) -> dict[str, Any]:
        return {"backend": MockBackend()}


def test_the_mock_runs_nearly_all_checks() -> None:
    """At least 80 % of the checks run on the mock."""
    checks = [name for name in dir(SandboxConformance) if name.startswith("test_")]
    assert len(checks) >= 120
    assert set(TestMock.exempt) <= set(checks)
    assert len(TestMock.exempt) <= 0.2 * len(checks)
