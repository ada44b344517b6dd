"""Whether a keeper can begin a sandbox without bubblewrap.

Distributions allow bubblewrap user namespaces that they deny to other programs (AppArmor), a
container may show a /proc with covers, and kernels before 5.12 cannot make a mount that is nowhere
yet. So it is tried: a sandbox is begun in which the guest only says how it is used.
"""

import contextlib
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

_PROGRAM = "/guest"
_USAGE = 64
_SECONDS = 10.0


def succeeds(guest: Path, directory: Path, *, privileged: bool) -> bool:
    """Whether that of the program `guest` can. Tried once for each state of its file, in a
    directory below this one, which is ours."""
    status = guest.stat()
    user = () if privileged else ("--user", "0:0")
    return _tried(str(guest), str(directory), user, status.st_ino, status.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _tried(
    guest: str,
    directory: str,
    user: tuple[str, ...],
    inode: int,  # noqa: ARG001 - of this file only
    changed: int,  # noqa: ARG001 - the same
) -> bool:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        home = tempfile.mkdtemp(prefix=".trial-", dir=directory)
        try:
            line = [guest, "--keep", home, "--begin", *user]
            line += ["--", "--shown", guest, _PROGRAM, "--", _PROGRAM, "--help"]
            quiet = subprocess.DEVNULL
            done = subprocess.run(
                line, stdin=quiet, stdout=quiet, stderr=quiet, timeout=_SECONDS, check=False
            )
            return done.returncode == _USAGE
        finally:
            shutil.rmtree(home, ignore_errors=True)
    return False
