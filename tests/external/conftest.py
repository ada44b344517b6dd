"""Other people's suites, run on Ringfence's adapters: each backend, as an image's ordinary user."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import ringfence

IMAGE = "ringfence-test/debian"
PYTHON = Path(__file__).with_name("bin")
"""A `python` for the suites that ask for one by that name."""

PERMISSIVE = {
    "profile": "permissive",
    "security": {
        "read_only_root": False,
        "capabilities": ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"),
    },
}

BACKENDS: dict[str, dict[str, Any]] = {
    "docker": {"backend": "docker", "image": IMAGE, "user": "user", **PERMISSIVE},
    "process": {
        "backend": "process",
        "profile": "permissive",
        "mounts": [ringfence.Mount(source=str(PYTHON), destination="/opt/python")],
        "env": {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin:/opt/python"},
    },
}


def require(backend: str) -> None:
    """Skip with the reason where a backend is missing; in CI that is a failure."""
    missing = None
    if backend == "docker":
        done = subprocess.run(
            ["docker", "image", "inspect", IMAGE], capture_output=True, text=True, check=False
        )
        missing = None if done.returncode == 0 else f"no image {IMAGE}: {done.stderr.strip()}"
    elif shutil.which("bwrap") is None:
        missing = "no bubblewrap"
    if missing is None:
        return
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
