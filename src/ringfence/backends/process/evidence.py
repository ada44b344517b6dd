"""What the kernel says of a sandbox's first process, read from outside, as plain data."""

import os
from collections.abc import Mapping
from typing import Any

from ringfence.backends.base import Record
from ringfence.metrics.places import read_text

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_STATUS = {
    "CapEff": "capabilities",
    "CapBnd": "bounding",
    "NoNewPrivs": "no_new_privileges",
    "Seccomp": "seccomp",
}


def status(pid: int) -> str:
    """/proc/PID/status. FileNotFoundError when it has ended."""
    try:
        return read_text(f"/proc/{pid}/status")
    except ProcessLookupError:
        raise FileNotFoundError(f"process {pid} has ended") from None


def describe(pid: int, status: str, record: Record, limits: Mapping[str, str]) -> dict[str, Any]:
    """The description of a running sandbox, with the `status` of its first process.

    namespaces: by kind, whether it is another than this process's; None where we may not look.
    interfaces: names of its network interfaces.
    """
    said = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return {
        "backend": record.backend,
        "id": record.id,
        "pid": pid,
        **{name: said[field].strip() for field, name in _STATUS.items() if field in said},
        "namespaces": {kind: _own(pid, kind) for kind in NAMESPACES},
        "interfaces": _interfaces(_read(f"/proc/{pid}/net/dev")),
        "uid_map": _read(f"/proc/{pid}/uid_map").split(),
        "gid_map": _read(f"/proc/{pid}/gid_map").split(),
        "oom_score_adj": _read(f"/proc/{pid}/oom_score_adj").strip(),
        "cgroup": dict(limits),
    }


def _own(pid: int, kind: str) -> bool | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")  # noqa: PTH115 - not a path
    except PermissionError:
        return None


def _interfaces(text: str) -> list[str]:
    return [line.partition(":")[0].strip() for line in text.splitlines()[2:]]


def _read(path: str) -> str:
    try:
        return read_text(path)
    except PermissionError:
        return ""
    except ProcessLookupError:
        raise FileNotFoundError(f"{path} has ended") from None
