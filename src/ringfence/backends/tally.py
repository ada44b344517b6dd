"""What is counted of cgroups that are gone, kept on the cgroup that they were below.

An extended attribute of its directory: it ends with the sandbox, needs no place of its own, and
every process that may look at the cgroup can read it.
"""

import contextlib
import os

_NAME = "user.ringfence.gone"
_FIELDS = 2


class Tally:
    """Kills for want of memory and refused forks below the cgroup at `directory`.

    One at a time may add to it. Where it takes no attributes (Linux before 5.7) this object alone
    knows.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._own = (0, 0)

    def read(self) -> tuple[int, int]:
        """Both, so far."""
        try:
            fields = os.getxattr(self._directory, _NAME).split()
        except OSError:
            return self._own
        if len(fields) != _FIELDS or not all(field.isdigit() for field in fields):
            return self._own
        return int(fields[0]), int(fields[1])

    def add(self, kills: int, refused: int) -> None:
        """Count these, too."""
        if not kills and not refused:
            return
        before = self.read()
        self._own = (before[0] + kills, before[1] + refused)
        with contextlib.suppress(OSError):
            os.setxattr(self._directory, _NAME, b"%d %d" % self._own)
