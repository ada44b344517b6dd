"""Docker Engines of the tests' own: one whose data is on btrfs, for sizes that hold and ends that
come, and one of another version.

Beside the machine's daemon, in a network namespace of its own: a daemon without a bridge removes
the one that it finds.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import missing, require_docker, require_root
from .images import BUSYBOX

TOOLS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SECONDS = 90.0
OTHER = Path(__file__).resolve().parent.parent / ".cache" / "second-engine" / "usr"
"""Where scripts/second_engine puts the programs of an Engine of another version."""


class Daemon:
    """A dockerd whose files are all in one directory. path: where its programs are looked for.
    options: further ones of its command line."""

    def __init__(self, directory: Path, path: str = TOOLS, options: Sequence[str] = ()) -> None:
        self.directory = directory
        self.path = path
        self.options = options
        self.url = f"unix://{directory}/e.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers. On a busy machine it may give its own containerd too
        little time and end: then it is started again."""
        end = time.monotonic() + SECONDS
        self._spawn()
        while not self._answers():
            log = (self.directory / "log").read_text()[-2000:]
            assert time.monotonic() < end, f"dockerd did not answer: {log}"
            if self.process is None or self.process.poll() is not None:
                self._spawn()
            time.sleep(0.1)

    def _spawn(self) -> None:
        here = self.directory
        for name in ("pid", "e.sock"):
            (here / name).unlink(missing_ok=True)
        (here / "daemon.json").write_text("{}")
        args = ["--config-file", "daemon.json", "--data-root", "data", "--exec-root", "exec"]
        args = [str(here / arg) if not arg.startswith("--") else arg for arg in args]
        with (here / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--net", "dockerd", *args, "--pidfile", str(here / "pid"), "-H", self.url,
                 "--bridge=none", "--iptables=false", *self.options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PATH": self.path},
            )  # fmt: skip

    def _answers(self) -> bool:
        try:
            self.docker("version")
        except subprocess.CalledProcessError:
            return False
        return True

    def docker(self, *args: str) -> str:
        """What Docker's own command prints when it asks this daemon."""
        return subprocess.run(
            ["docker", "-H", self.url, *args],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        ).stdout.strip()

    def end(self) -> None:
        """End it and wait until it is gone. Idempotent."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(SECONDS)
            self.process = None

    def kill(self) -> None:
        """End it and its containerd as a crash does: what they started runs on."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait(SECONDS)
        self.process = None
        supervisors = [pid for pid in processes_of(self.directory) if name_of(pid) == "containerd"]
        for pid in supervisors:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + SECONDS
        while any(name_of(pid) == "containerd" for pid in supervisors):
            assert time.monotonic() < end, "containerd does not end"
            time.sleep(0.05)
        for path in (self.directory / "exec" / "containerd").glob("containerd.*"):
            if path.suffix in (".pid", ".sock"):
                path.unlink()


@contextmanager
def private_daemon() -> Iterator[Daemon]:
    """One that runs and has the image BUSYBOX; nothing of it is left afterwards. Skips (CI: fails)
    where it cannot be."""
    require_docker(BUSYBOX)
    require_root()
    for tool in ("dockerd", "mkfs.btrfs"):
        if shutil.which(tool, path=TOOLS) is None:
            missing(f"there is no {tool}")
    directory = Path(tempfile.mkdtemp(prefix="rfd"))
    disk, data = directory / "disk", directory / "data"
    data.mkdir()
    with disk.open("wb") as file:
        file.truncate(2**29)
    # newer ones do not choose btrfs by themselves
    started = Daemon(directory, options=["--storage-driver=btrfs"])
    try:
        run("mkfs.btrfs", "-q", str(disk))
        run("mount", "-o", "loop", str(disk), str(data))
        started.start()
        give_image(started)
        yield started
    finally:
        _remove(started)


@contextmanager
def other_daemon(*options: str) -> Iterator[Daemon]:
    """One of another version than the machine's, with these options; it has the image BUSYBOX. Skips
    where none could be had, in CI as well: whether a mirror has it is not for the tests to say."""
    if not (OTHER / "sbin" / "dockerd").exists():
        pytest.skip("there is no Engine of another version: scripts/second_engine says why")
    with daemon_with(*options, path=f"{OTHER}/sbin:{OTHER}/bin:{TOOLS}") as started:
        yield started


@contextmanager
def daemon_with(*options: str, path: str = TOOLS) -> Iterator[Daemon]:
    """One with these options, of the programs in `path`; it has the image BUSYBOX, and nothing of it
    is left afterwards. Skips (CI: fails) where it cannot be."""
    require_docker(BUSYBOX)
    require_root()
    if shutil.which("dockerd", path=path) is None:
        missing("there is no dockerd")
    directory = Path(tempfile.mkdtemp(prefix="rfd"))
    started = Daemon(directory, path, options)
    try:
        started.start()
        give_image(started)
        yield started
    finally:
        _remove(started)


def _remove(daemon: Daemon) -> None:
    """End it and all that it started. One that was killed, or that lets its containers live, leaves
    its data mounted."""
    daemon.end()
    end_all_of(daemon.directory)
    data = str(daemon.directory / "data")
    subprocess.run(["umount", "-R", data], check=False, env={"PATH": TOOLS}, capture_output=True)
    shutil.rmtree(daemon.directory, ignore_errors=True)


def give_image(daemon: Daemon) -> None:
    """BUSYBOX, as the machine's daemon has it."""
    saved = daemon.directory / "image.tar"
    run("docker", "save", "-o", str(saved), BUSYBOX)
    daemon.docker("load", "-i", str(saved))
    saved.unlink()


def run(*args: str) -> None:
    subprocess.run(args, check=True, env={"PATH": TOOLS}, capture_output=True, timeout=60)


def end_all_of(directory: Path) -> None:
    """Kill what a daemon left running, known by `directory` in its arguments; wait for its end."""
    end = time.monotonic() + SECONDS
    while left := list(processes_of(directory)):
        assert time.monotonic() < end, f"{left} do not end"
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def processes_of(directory: Path) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(directory).encode() in path.read_bytes():
                yield int(path.parent.name)


def name_of(pid: int) -> str:
    """The kernel's name of a process, "" when there is none."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
