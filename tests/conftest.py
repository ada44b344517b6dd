"""What tests need of the machine, and a state directory of their own.

What is not there is a skip with its reason on a developer's machine and a failure when the
environment variable CI is set: there nothing may be left out in silence.
"""

import functools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from ringfence.backends.cgroup_tree import find_tree
from ringfence.backends.process import command, memory

# The same examples every time: what a random search finds is for `make soak`, which sets "soak".
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("soak", deadline=None, database=None, max_examples=2000)
settings.load_profile(os.environ.get("RINGFENCE_HYPOTHESIS", "repeatable"))

# A shell ignores it for what it runs in the background, and the children of the tests would too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def missing(reason: str) -> None:
    """Skip the test for `reason`; fail it when CI is set."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def require_docker(*images: str) -> None:
    """Skip (CI: fail) unless a Docker Engine answers and has `images`."""
    reason = _docker_trouble()
    if reason is not None:
        missing(reason)
    for image in images:
        if not _has_image(image):
            missing(f"the image {image} is not on the daemon: run scripts/images")


@pytest.fixture(scope="module")
def begun_by_bubblewrap() -> Iterator[None]:
    """Have each sandbox of processes a bubblewrap, as where a keeper may not do without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "begins", lambda *_: False)
        yield


def require_bwrap() -> None:
    """Skip (CI: fail) unless bubblewrap is installed."""
    if shutil.which("bwrap") is None:
        missing("bubblewrap is not installed: apt-get install bubblewrap")


def require_gvisor() -> None:
    """Skip (CI: fail) unless a Docker Engine answers and has the runtime runsc."""
    require_docker()
    if "runsc" not in _docker("info", "--format", "{{json .Runtimes}}").stdout:
        missing("the Docker Engine has no runtime called runsc: see scripts/dockerd")


def require_root() -> None:
    """Skip (CI: fail) unless the tests run as root."""
    if os.geteuid() != 0:
        missing("needs root")


UNLIMITED = ("memory", "cpus", "pids")
"""What an ordinary user to whom no cgroup is delegated has to do without, by name."""


@functools.cache
def cgroups_are_ours() -> bool:
    """Whether this user may make cgroups, which limits, usage and a pause need on the process
    backend."""
    return not set(UNLIMITED) - find_tree().limits


def require_cgroups() -> None:
    """Skip (CI: fail) unless this user may make cgroups."""
    if not cgroups_are_ours():
        missing("no cgroup is delegated to this user, or run as root")


def on_process() -> dict[str, Any]:
    """What opens a sandbox on the process backend, as whoever runs the tests can have it. Skips
    (CI: fails) without bubblewrap."""
    require_bwrap()
    security = {} if cgroups_are_ours() else {"security": {"allow_degraded": UNLIMITED}}
    return {"backend": "process", **security}


def process_options() -> list[str]:
    """The same as options of the command line."""
    security = on_process().get("security", {})
    less = ["--allow-degraded", ",".join(UNLIMITED)] if security else []
    return ["--backend", "process", *less]


def wait_for(fact: Callable[[], bool], seconds: float = 75.0) -> bool:
    """Whether a fact comes about within so many seconds."""
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def give(path: Path, uid: int = 1000) -> None:
    """Make `path` and all below it another user's. Only root can: an ordinary user's own it stays,
    and commands then have that user's uid."""
    if os.geteuid() == 0:
        for place in (path, *path.rglob("*")):
            os.chown(place, uid, uid, follow_symlinks=False)


def _docker(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *args], capture_output=True, text=True, timeout=60, check=False
    )


@functools.cache
def _docker_trouble() -> str | None:
    if shutil.which("docker") is None:
        return "no docker command: apt-get install docker.io"
    answer = _docker("version", "--format", "{{.Server.Version}}")
    if answer.returncode != 0:
        return f"no Docker Engine answers: {answer.stderr.strip()}"
    return None


@functools.cache
def _has_image(image: str) -> bool:
    return _docker("image", "inspect", image).returncode == 0


@pytest.fixture
def state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty state directory for this test alone, named by RINGFENCE_STATE_DIR."""
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("RINGFENCE_STATE_DIR", str(directory))
    yield directory
    memory.leave(directory / "process/sandboxes")  # a backend that nobody closed has made it
