"""What the kernel says of a sandbox's first process, read from outside, as plain data."""

import os
from collections.abc import Mapping
from typing import Any

from ringfence.backends.base import Record
from ringfence.metrics.places import read_text, read_value


def status(pid: int) -> str:
    """/proc/PID/status. FileNotFoundError when it has ended."""
    try:
        return read_value(f"/proc/{pid}/status")
    except ProcessLookupError:
        raise FileNotFoundError(f"process {pid} has ended") from None


def describe(pid: int, record: Record, here: Mapping[str, str]) -> dict[str, Any]:
    """The description of a running sandbox whose first process is `pid`. here: the namespaces of
    this process.

    namespaces: whether that of users is another than this process's; None where we may not look.
    """
    namespaces = {"user": _own_users(pid, here.get("user"))}
    return {"backend": record.backend, "id": record.id, "pid": pid, "namespaces": namespaces}


def _own_users(pid: int, ours: str | None) -> bool | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/user") != ours  # noqa: PTH115 - not a path
    except PermissionError:
        return True if _maps_users_otherwise(pid) else None


def _maps_users_otherwise(pid: int) -> bool:
    """Whether its users are mapped in another way, which everybody may look at."""
    return read_text(f"/proc/{pid}/uid_map").split() != read_text("/proc/self/uid_map").split()
