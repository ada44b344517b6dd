"""Build hook: compile the guest agent into the wheel, or beside the sources for an editable one.

RINGFENCE_WHEEL_MACHINE=aarch64 makes the wheel for that machine; with RINGFENCE_WHEEL_PLATFORM it
has that platform in its tag (scripts/wheels), else this system's own.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GuestBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs src/ringfence/guest/build.py and adds what it made."""

    def dependencies(self) -> list[str]:
        """A compiler from the package index, where the system's cannot do it."""
        return [] if self.target_name != "wheel" or compiles_static() else ["ziglang"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Compile, and mark the wheel as one for this machine and any Python 3."""
        if self.target_name != "wheel":
            return
        machine = os.environ.get("RINGFENCE_WHEEL_MACHINE", platform.machine())
        system = os.environ.get("RINGFENCE_WHEEL_PLATFORM", f"linux_{machine}")
        script = Path(self.root, "src/ringfence/guest/build.py")
        command = [sys.executable, str(script), "--quiet", "--machine", machine]
        subprocess.run(command, check=True)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{system}"
        build_data["artifacts"].append(f"src/ringfence/guest/bin/ringfence-guest-{machine}")


def compiles_static() -> bool:
    """Whether the system has a C compiler that links without shared libraries."""
    if os.environ.get("RINGFENCE_WHEEL_MACHINE", platform.machine()) != platform.machine():
        return False
    if shutil.which("musl-gcc"):
        return True
    command = ["cc", "-static", "-x", "c", "-", "-o", os.devnull]
    try:
        done = subprocess.run(
            command, input=b"int main(void) { return 0; }", capture_output=True, check=False
        )
    except OSError:
        return False
    return done.returncode == 0
