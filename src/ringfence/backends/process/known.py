"""What was learned of this machine, shared by all backends of one event loop.

Each sandbox may come with a backend of its own; the machine need not be looked at anew each time,
and starts and ends are bounded for all of them together.
"""

import asyncio
import os
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock

from ringfence.backends import exec_cgroups, late_binds
from ringfence.backends.base import Features
from ringfence.backends.cgroups import Cgroup
from ringfence.backends.process import binary, etc, memory, root
from ringfence.backends.process import home as homes
from ringfence.backends.process import machine as machines
from ringfence.backends.process.etc import User
from ringfence.backends.process.keeper import sweep
from ringfence.backends.process.machine import Machine
from ringfence.backends.process.refusals import ALWAYS
from ringfence.backends.state import VARIABLE, state_directory

_AT_ONCE = 32
"""More starts, or ends, would not be faster, and each would take longer than it is given."""
_SECONDS = 1.0
_SWEEP_SECONDS = 60.0
_PLACES = (VARIABLE, "XDG_STATE_HOME", "HOME", "PATH")
"""The variables that say where things are."""


@dataclass(frozen=True)
class Ground:
    """The machine, and the directory of what must outlive this process, as they were found. seen:
    when, on the monotonic clock in seconds."""

    machine: Machine
    directory: Path
    seen: float
    _etc: dict[User, tuple[list[root.Entry], str]] = field(default_factory=dict)

    @property
    def fresh(self) -> bool:
        """Whether it need not be looked at again."""
        return time.monotonic() - self.seen <= _SECONDS

    @cached_property
    def features(self) -> Features:
        """What this machine can enforce."""
        machine, tree = self.machine, self.machine.tree
        return Features(
            limits=ALWAYS | tree.limits,
            transports=("socket",),
            family_kill="exec",
            pty=True,
            detached=True,
            users=machine.privileged,
            mounts=True,
            networks=frozenset({"none", "proxy"}),
            pause=tree.freezes,
            receipt=True,
            usage=tree.version > 0,
            lifeline=True,
            cpu_counter=not tree.controllers.isdisjoint({"cpuacct", "cpu"}),
            exec_cgroups=exec_cgroups.possible(tree.version),
            late_binds=machine.privileged and late_binds.possible(),
            missing=tree.missing,
        )

    def sandboxes(self) -> Path:
        """The directory of all sandboxes, or a link to one that is ours alone."""
        found = self.directory / "sandboxes"
        memory.ours(found)
        return found

    def cgroup(self, sandbox_id: str) -> Cgroup | None:
        """What is there of a sandbox's cgroups."""
        tree = self.machine.tree
        if not tree.version:
            return None
        whole = tree.cgroup(sandbox_id)
        there = {name: path for name, path in whole.directories.items() if Path(path).is_dir()}
        return Cgroup(tree, there) if there else None

    def system(self, user: User) -> tuple[list[root.Entry], str]:
        """The host's own system as root, and the name of the selection of /etc in it. OSError."""
        found = self._etc.get(user)
        if found is None:
            selected = etc.selection(self.directory / "etc", user)
            found = self._etc[user] = root.host(selected, user.home), selected.name
        return found


@dataclass(eq=False)
class Known:
    """Of one event loop. starts, ends: how many sandboxes may start, and end, at once."""

    starts: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    ends: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    _grounds: dict[tuple[str | None, ...], Ground] = field(default_factory=dict)

    def ground(self, endpoint: str | None) -> Ground:
        """The machine and the directory of `endpoint`, looked at a second ago at the most.

        BackendUnavailableError with the remedy.
        """
        key = (endpoint, *map(os.environ.get, _PLACES))
        ground = self._grounds.get(key)
        if ground is None or not ground.fresh:
            ground = self._grounds[key] = _look(endpoint)
        return ground

    def forget(self, ground: Ground) -> None:
        """Have the next one look again, whenever that was looked at."""
        self._grounds = {key: one for key, one in self._grounds.items() if one is not ground}


_known: dict[asyncio.AbstractEventLoop, Known] = {}
_lock = Lock()


def known() -> Known:
    """What the running event loop knows; what a closed one knew is forgotten."""
    loop = asyncio.get_running_loop()
    found = _known.get(loop)
    if found is None:
        with _lock:
            for other in [one for one in _known if one.is_closed()]:
                del _known[other]
            found = _known[loop] = Known()
    return found


def _look(endpoint: str | None) -> Ground:
    base = state_directory() if endpoint is None else Path(endpoint)
    directory = base / "process"
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    memory.ready(directory / "sandboxes")
    ground = Ground(machines.look(binary.kept(directory), directory), directory, time.monotonic())
    _sweep(ground)
    return ground


def _sweep(ground: Ground) -> None:
    """Remove what keepers that were killed left behind, and what no sandbox uses any more.

    Once a minute is enough, whoever does it.
    """
    note = ground.directory / "swept"
    try:
        if time.time() - note.stat().st_mtime < _SWEEP_SECONDS:
            return
    except FileNotFoundError:
        pass
    note.touch()
    sandboxes = ground.sandboxes()
    for home in homes.abandoned(sandboxes):
        sweep(home, ground.cgroup(home.id))
    there = (home.facts() for home in homes.homes(sandboxes))
    etc.prune(ground.directory / "etc", [facts.get("etc", "") for facts in there if facts])
