"""The namespaces of this process, by the kernel's word."""

import contextlib
import os

KINDS = ("pid", "mnt", "net", "ipc", "uts", "cgroup", "user")


def own_namespaces() -> dict[str, str]:
    """The kernel's identity of each, by kind; one that this kernel has not is left out."""
    found = {}
    for kind in KINDS:
        with contextlib.suppress(OSError):
            found[kind] = os.readlink(f"/proc/self/ns/{kind}")  # noqa: PTH115 - no path
    return found
