"""Where this process may make cgroups for sandboxes."""

import contextlib
import errno
import functools
import os
from collections.abc import Mapping
from pathlib import Path

from ringfence.backends.cgroup_files import SOCKETS
from ringfence.backends.cgroups import Tree
from ringfence.metrics.places import Place, places, places_of, read_text, unified_controllers

NAME = "ringfence"
_V1 = ("memory", "pids", "cpu", "cpuacct", "freezer", "blkio", "cpuset")
_V2 = ("memory", "pids", "cpu", "cpuset", "io")


def known_tree() -> Tree:
    """`find_tree`, kept for as long as it is there and this process stays in its own cgroups."""
    at = os.geteuid(), read_text("/proc/self/cgroup")
    tree = _known(*at)
    if not tree.version or not all(os.access(one, os.W_OK) for one in tree.directories.values()):
        _known.cache_clear()
        tree = _known(*at)
    return tree


@functools.lru_cache(maxsize=2)
def _known(user: int, cgroups: str) -> Tree:  # noqa: ARG001 - a tree is this process's own
    return find_tree()


def find_tree() -> Tree:
    """Where this process may make cgroups for sandboxes, made when missing.

    As root directly below the root of each hierarchy, so that they do not end with the service
    that made them; else in the topmost delegated cgroup above this process.
    """
    own = places_of()
    unified = own.get("unified")
    if unified is not None and "memory" in _offered_above(unified):
        return _find_v2(unified)
    return _find_v1(own)


def _offered_above(unified: Place) -> frozenset[str]:
    root = Path(unified.directory)
    for directory in (root, *root.parents):
        offered = unified_controllers(Place(2, "", str(directory)))
        if offered:
            return offered
        if not (directory / "cgroup.procs").exists():
            break
    return frozenset()


def _find_v1(own: Mapping[str, Place]) -> Tree:
    found: dict[str, str] = {}
    why = ""
    top = places(f"/{NAME}") if os.geteuid() == 0 else {}
    for controller in _V1:
        if controller not in own:
            why = why or f"no {controller} cgroup is mounted here"
            continue
        place = top.get(controller)
        directory = f"{own[controller].directory}/{NAME}" if place is None else place.directory
        try:
            _make_v1(controller, Path(directory))
        except OSError as error:
            why = f"{directory} cannot be made: {error.strerror}"
            continue
        found[controller] = directory
    if not found:
        return Tree(missing=f"{why}; run as root, or have these cgroups given to this user")
    return Tree(1, found, frozenset(found), why)


def _make_v1(controller: str, directory: Path) -> None:
    if not directory.is_dir():
        directory.mkdir(exist_ok=True)
    if controller == "cpuset":
        for name in ("cpuset.mems", "cpuset.cpus"):
            if not (directory / name).read_text().strip():
                (directory / name).write_text((directory.parent / name).read_text())
    if not os.access(directory, os.W_OK):
        raise PermissionError(errno.EACCES, "it belongs to somebody else")
    if controller == "memory":
        # The kernel rewrites its own code as the first cgroup counts sockets, and as the last goes.
        with contextlib.suppress(OSError):
            (directory / SOCKETS).write_text("-1")


def _find_v2(unified: Place) -> Tree:
    parent = _delegated(unified)
    if parent is None:
        return Tree(
            missing="no cgroup is delegated to this user: start it with"
            " `systemd-run --user --scope`, or run as root"
        )
    try:
        directory = parent / NAME
        _enable(parent)
        if not directory.is_dir():
            _make_v2(directory)
        _enable(directory)
    except OSError as error:
        return Tree(missing=f"cgroups cannot be made in {parent}: {error.strerror}")
    offered = unified_controllers(Place(2, "", str(directory))) & set(
        (directory / "cgroup.subtree_control").read_text().split()
    )
    return Tree(2, {"unified": str(directory)}, offered & set(_V2))


def _make_v2(directory: Path) -> None:
    directory.mkdir(exist_ok=True)


def _delegated(unified: Place) -> Path | None:
    """The topmost cgroup from this process's own upwards that this user may use and that may have
    children: the root's for root, else one without processes."""
    if os.geteuid() == 0:
        top = places(f"/{NAME}").get("unified")
        if top is not None:
            return Path(top.directory).parent
    found = None
    own = Path(unified.directory)
    for directory in (own, *own.parents):
        procs = directory / "cgroup.procs"
        if not procs.exists() or not os.access(procs, os.W_OK):
            break
        if not procs.read_text().split():
            found = directory
    return found


def _enable(directory: Path) -> None:
    control = directory / "cgroup.subtree_control"
    offered = set((directory / "cgroup.controllers").read_text().split())
    missing = (offered & set(_V2)) - set(control.read_text().split())
    if missing:
        control.write_text(" ".join(f"+{name}" for name in sorted(missing)))
