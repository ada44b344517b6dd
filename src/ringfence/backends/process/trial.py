"""Whether an ordinary user may do what a keeper does without bubblewrap.

Distributions allow bubblewrap user namespaces that they deny to other programs (AppArmor), and a
container may show a /proc with covers. So it is tried: a sandbox is begun that runs nothing.
"""

import contextlib
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

GUEST = "/.ringfence/guest"
_SECONDS = 10.0


def succeeds(guest: Path, directory: Path) -> bool:
    """Whether a keeper, the program `guest`, can make namespaces and mounts itself. Tried once for
    each state of its file, in a directory below this one, which is ours."""
    status = guest.stat()
    return _tried(str(guest), str(directory), status.st_ino, status.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _tried(guest: str, directory: str, inode: int, changed: int) -> bool:  # noqa: ARG001 - of this file only
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        home = tempfile.mkdtemp(prefix=".trial-", dir=directory)
        try:
            line = [guest, "--keep", home, "--user", "0:0", "--"]
            line += ["--bind", "ro", guest, GUEST, "--", GUEST, "--hold"]
            quiet = subprocess.DEVNULL
            done = subprocess.run(
                line, stdin=quiet, stdout=quiet, stderr=quiet, timeout=_SECONDS, check=False
            )
            return done.returncode == 0
        finally:
            shutil.rmtree(home, ignore_errors=True)
    return False
