"""The Docker backend on an Engine of another version than the machine's own.

What an Engine has a part in: lives, confinement, commands, cgroups. Files and processes are the guest's.
"""

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from ringfence.testing.commands import CommandChecks
from ringfence.testing.confinement import ConfinementChecks
from ringfence.testing.life import LifeChecks
from ringfence.testing.measuring import MeasuringChecks

from ..daemon import Daemon, other_daemon
from ..images import BUSYBOX

pytestmark = pytest.mark.docker
VERSION = ("version", "--format", "{{.Server.Version}}")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with other_daemon() as started:
        yield started


def test_it_is_another_version(daemon: Daemon) -> None:
    """Else nothing would be proven here."""
    usual = subprocess.check_output(["docker", *VERSION], text=True).strip()
    assert daemon.docker(*VERSION) != usual


class TestDockerSecond(LifeChecks, ConfinementChecks, MeasuringChecks, CommandChecks):
    @pytest.fixture(scope="class")
    @classmethod
    def spec_kwargs(cls, daemon: Daemon) -> dict[str, Any]:
        return {"image": BUSYBOX, "endpoint": daemon.url}
