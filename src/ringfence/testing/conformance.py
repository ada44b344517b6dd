"""The conformance suite: what every backend must do, as one class to subclass."""

from ringfence.testing.commands import CommandChecks
from ringfence.testing.confinement import ConfinementChecks
from ringfence.testing.files import FileChecks
from ringfence.testing.life import LifeChecks
from ringfence.testing.measuring import MeasuringChecks
from ringfence.testing.processes import ProcessChecks
from ringfence.testing.trees import TreeChecks


class SandboxConformance(
    CommandChecks,
    MeasuringChecks,
    ProcessChecks,
    FileChecks,
    TreeChecks,
    LifeChecks,
    ConfinementChecks,
):
    """Subclass it in a test module, override the fixture `spec_kwargs`, and run pytest.

    Each method's name and docstring say the fact that it checks. A feature that the backend's
    `Features` declare absent must raise UnsupportedError; that is checked, not skipped. What a
    backend cannot show at all (a mock has no kernel) is listed in `exempt`, by name and reason.
    The sandbox needs `sh`, `cat`, `echo`, `sleep`, `env`, `pwd`, `id`, `kill`, `touch`, `mkfifo`,
    `stty`, `grep` and `wc`; busybox has them all.
    """
