"""What is asked for (frozen, validated models) and what comes back (plain values)."""

from ringfence.spec.limits import Limits, Ulimit, Ulimits
from ringfence.spec.mount import Mount, Repository
from ringfence.spec.network import Network
from ringfence.spec.results import (
    Control,
    ExecResult,
    ExecUsage,
    Reason,
    Receipt,
    RunResult,
    SandboxInfo,
    State,
    Usage,
)
from ringfence.spec.sandbox import SandboxSpec
from ringfence.spec.security import Security

__all__ = [
    "Control",
    "ExecResult",
    "ExecUsage",
    "Limits",
    "Mount",
    "Network",
    "Reason",
    "Receipt",
    "Repository",
    "RunResult",
    "SandboxInfo",
    "SandboxSpec",
    "Security",
    "State",
    "Ulimit",
    "Ulimits",
    "Usage",
]
