"""Row 13: processes that try to outlive their command. They are looked for from the host."""

import asyncio
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

import ringfence
from ringfence import Reason

from .conftest import BOTH, DOCKER, PROCESS, keywords

ESCAPEES = """
trap '' TERM HUP INT
for n in 1 2 3 4 5; do setsid sleep 1000 & done
for n in 1 2 3 4 5; do (setsid sh -c 'trap "" TERM; sleep 1000 & sleep 1000' &) & done
for n in 1 2 3; do setsid sh -c 'kill -STOP $$; sleep 1000' & done
for n in 1 2; do setsid sh -c 'hop() { hop & }; hop' & done
wait
"""
"""In sessions of their own, orphaned, deaf to signals, stopped, and forking as fast as they can."""
LEAST = 20
GONE_SECONDS = 0.1
ARMED_SECONDS = 30.0


def marked(mark: bytes) -> list[int]:
    """Processes of this machine with `mark` in their environment, wherever they live."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and mark in Path("/proc", name, "environ").read_bytes():
                found.append(int(name))
        except OSError:
            continue
    return found
