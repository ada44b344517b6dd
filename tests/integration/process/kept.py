"""A keeper that a test starts itself."""

import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from ringfence.backends.process.home import Home
from ringfence.guest import build

WAIT_SECONDS = 30.0
BWRAP = ("/usr/bin/bwrap", "--unshare-pid", "--as-pid-1", "--info-fd", "3", "--ro-bind", "/", "/")
SYSTEM = (
    "--shown", "/usr", "/usr", "--link", "usr/bin", "/bin", "--link", "usr/lib", "/lib",
    "--link", "usr/lib64", "/lib64",
)  # fmt: skip
"""Parts of a root in which the host's programs run."""


_RUNS_NOTHING = ("/proc", "/dev/pts", "/dev/shm", "/run")


def weak(mountinfo: str) -> list[str]:
    """The mounts of a sandbox that lack what they are to have: no program gets a right by its file,
    and devices are those of /dev alone."""
    found = []
    for line in mountinfo.splitlines():
        top, place, options = line.split()[3:6]
        wanted = {"nosuid"}
        if top != "/null" and (place == "/dev/shm" or not f"{place}/".startswith("/dev/")):
            wanted.add("nodev")
        if place in _RUNS_NOTHING:
            wanted.add("noexec")
        if not wanted <= set(options.split(",")):
            found.append(line)
    return found


def until(fact: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not fact():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


class Kept:
    """A keeper in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.home = Home(directory / f"kept-{uuid.uuid4().hex[:8]}")
        self.home.make({}, "/bin/true")
        (self.home.run / "host.sock").touch()
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        *args: str,
        stdin: int = subprocess.DEVNULL,
        passed: tuple[int, ...] = (),
        line: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """line: what starts it, if not we."""
        self.process = subprocess.Popen(
            [*line, build.target(), "--keep", self.home.path, *args],
            stdin=stdin,
            stderr=subprocess.PIPE,
            pass_fds=passed,
        )
        return self.process

    def end(self) -> tuple[int, str]:
        assert self.process is not None
        _, errors = self.process.communicate(timeout=WAIT_SECONDS)
        return self.process.returncode, errors.decode()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.end()

    def child(self) -> int:
        """The keeper's, 0 for none."""
        assert self.process is not None
        pid = self.process.pid
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(found[0]) if found else 0

    def sleeps(self) -> bool:
        """Whether the child is `sleep` by now. What starts the keeper may have others before."""
        try:
            return Path(f"/proc/{self.child()}/comm").read_text() == "sleep\n"
        except OSError:
            return False

    def sleeping(
        self, *args: str, stdin: int = subprocess.DEVNULL, line: Sequence[str] = ()
    ) -> int:
        """Start a sandbox that sleeps; the pid of its first process."""
        self.start(*args, "--", *BWRAP, "/bin/sleep", "1000", stdin=stdin, line=line)
        until(self.home.guest)
        return self.home.guest() or 0
