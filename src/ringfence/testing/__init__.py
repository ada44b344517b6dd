"""For tests: the conformance suite that a backend must pass. See docs/conformance.md."""

from ringfence.testing.conformance import SandboxConformance

__all__ = ["SandboxConformance"]
