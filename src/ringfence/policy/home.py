"""Where whoever runs Ringfence is at home."""

import os
import pwd
from collections.abc import Mapping
from pathlib import Path


def home(environ: Mapping[str, str] | None = None) -> Path:
    """HOME, else the home directory of this uid, else (a uid that no name has, as in many
    containers) /nonexistent."""
    env = os.environ if environ is None else environ
    if named := env.get("HOME"):
        return Path(named)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/nonexistent")
