"""What a cgroup of version 2 does not count of the cgroups below it."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from ringfence.metrics import parse
from ringfence.metrics.places import GUEST_LEAF, read_text

_STAT_BYTES = 4096
_LISTS = (("cgroup.procs", "processes"), ("cgroup.threads", "threads"))


class Below:
    """The cgroups below one, on a kept descriptor: where there are none that is one short read."""

    def __init__(self, directory: str) -> None:
        """OSError when it is not there."""
        self._directory = directory
        self._stat = os.open(f"{directory}/cgroup.stat", os.O_RDONLY | os.O_CLOEXEC)

    def directories(self) -> list[str]:
        """Where they are. OSError when the cgroup is gone."""
        if not parse.counter(os.pread(self._stat, _STAT_BYTES, 0), b"nr_descendants"):
            return []
        with os.scandir(self._directory) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]

    def read(self) -> Mapping[str, int]:
        """Their processes and threads, by field of `Usage`, and the forks refused in the guest's
        leaf, which Linux 6.11 and newer tell above it. OSError when the cgroup is gone."""
        found: dict[str, int] = {}
        for directory in self.directories():
            with contextlib.suppress(OSError):
                for file, field in _LISTS:
                    listed = read_text(f"{directory}/{file}").count("\n")
                    found[field] = found.get(field, 0) + listed
                if Path(directory).name == GUEST_LEAF:
                    events = read_text(f"{directory}/pids.events").encode()
                    found["forks_refused"] = parse.counter(events, b"max") or 0
        return found

    def close(self) -> None:
        """Once."""
        os.close(self._stat)
