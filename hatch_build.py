"""Build hook: compile the guest agent into the wheel, or beside the sources for an editable one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GuestBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs src/ringfence/guest/build.py and adds what it made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Compile, and mark the wheel as one for this machine."""
        if self.target_name != "wheel":
            return
        script = Path(self.root, "src/ringfence/guest/build.py")
        subprocess.run([sys.executable, str(script), "--quiet"], check=True)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["artifacts"].append("src/ringfence/guest/bin/*")
