"""Sandboxes in memory, for tests of programs that use Ringfence. See docs/mock.md."""

from ringfence.backends.mock.backend import MockBackend, MockInstance
from ringfence.backends.mock.script import Call, Command, Pattern, Recorded

__all__ = ["Call", "Command", "MockBackend", "MockInstance", "Pattern", "Recorded"]
