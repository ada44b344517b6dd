"""What the kernel says of a sandbox's first process, read from outside, as plain data."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringfence.backends.base import Record
from ringfence.metrics.places import unescape

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
        return Path(f"/proc/{pid}/status").read_text()
    except ProcessLookupError:
        raise FileNotFoundError(f"process {pid} has ended") from None


def describe(pid: int, record: Record, limits: Mapping[str, str]) -> dict[str, Any]:
    """The description of a running sandbox.

    namespaces: by kind, whether it is another than this process's; None where we may not look.
    mounts: destination, type and options of each. interfaces: names of its network interfaces.
    """
    said = dict(line.split(":", 1) for line in status(pid).splitlines() if ":" in line)
    return {
        "backend": record.backend,
        "id": record.id,
        "pid": pid,
        **{name: said[field].strip() for field, name in _STATUS.items() if field in said},
        "namespaces": {kind: _own(pid, kind) for kind in NAMESPACES},
        "mounts": mounts(_read(f"/proc/{pid}/mountinfo")),
        "interfaces": _interfaces(_read(f"/proc/{pid}/net/dev")),
        "uid_map": _read(f"/proc/{pid}/uid_map").split(),
        "gid_map": _read(f"/proc/{pid}/gid_map").split(),
        "oom_score_adj": _read(f"/proc/{pid}/oom_score_adj").strip(),
        "cgroup": dict(limits),
    }


def mounts(mountinfo: str) -> list[dict[str, Any]]:
    """The lines of a mountinfo file, in its order; a later one covers an earlier one."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 6 or len(kind) < 3:
            continue
        found.append(
            {
                "destination": unescape(fields[4]),
                "type": kind[0],
                "options": sorted({*fields[5].split(","), *kind[2].split(",")[1:]}),
                "read_only": "ro" in fields[5].split(","),
            }
        )
    return found


def _own(pid: int, kind: str) -> bool | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")  # noqa: PTH115 - not a path
    except PermissionError:
        return None


def _interfaces(text: str) -> list[str]:
    return [line.partition(":")[0].strip() for line in text.splitlines()[2:]]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except PermissionError:
        return ""
    except ProcessLookupError:
        raise FileNotFoundError(f"{path} has ended") from None
