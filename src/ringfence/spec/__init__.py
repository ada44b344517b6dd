"""What is asked for (frozen, validated models) and what comes back (plain values)."""

from ringfence.spec.limits import Limits, Ulimit, Ulimits
from ringfence.spec.mount import GitIdentity, Mount, Repository
from ringfence.spec.network import Network, Port, Rule, Secret
from ringfence.spec.receipt import Control, Receipt
from ringfence.spec.results import (
    ExecResult,
    ExecUsage,
    Reason,
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
    "GitIdentity",
    "Limits",
    "Mount",
    "Network",
    "Port",
    "Reason",
    "Receipt",
    "Repository",
    "Rule",
    "RunResult",
    "SandboxInfo",
    "SandboxSpec",
    "Secret",
    "Security",
    "State",
    "Ulimit",
    "Ulimits",
    "Usage",
]
