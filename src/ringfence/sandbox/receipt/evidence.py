"""All that a receipt is made from, and the few ways to read it."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ParamSpec, TypeVar, cast

from ringfence.backends.base import Evidence
from ringfence.policy.profiles import is_gvisor
from ringfence.sandbox.receipt.view import GuestView, status_fields
from ringfence.spec import Control, SandboxSpec

_CGROUP_INSIDE = (
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/memory",
    "/sys/fs/cgroup/pids",
    "/sys/fs/cgroup/cpu",
    "/sys/fs/cgroup/cpuset",
)
P = ParamSpec("P")
T = TypeVar("T")
_OF_GUEST = ("Uid", "CapPrm", "NoNewPrivs")
_MANY = (list, tuple, set, frozenset)
_LONG = 32 * 1024
_forget: list[Callable[[], None]] = []


def remembered(rows: Callable[P, T]) -> Callable[P, T]:
    """Made once for the same evidence, which sandboxes alike have: what it is called with, all of
    it hashable, is all that the rows are made from."""
    once = functools.lru_cache(maxsize=512)(rows)
    _forget.append(once.cache_clear)
    return cast("Callable[P, T]", once)


def keep_nothing_long(view: GuestView) -> None:
    """After the rows from it were made: a guest that is not ours any more shows what it wants."""
    if view.bytes > _LONG:
        for each in _forget:
            each()


@dataclass(frozen=True)
class Findings:
    """spec: the granted one, for what was requested and for nothing else. outside: the backend's
    evidence. view: a command's own. here: the namespaces of this process, by kind, {} when the
    sandbox is on another machine. profile: the granted seccomp profile in OCI's format.
    reserved_uid: the guest's own. disk_watched: whether nothing but the holder watches it.
    """

    spec: SandboxSpec
    outside: Evidence
    view: GuestView
    here: Mapping[str, str] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)
    reserved_uid: int = 65501
    disk_watched: bool = False

    @cached_property
    def host_config(self) -> Mapping[str, Any]:
        """The Engine's description of how it runs the container; {} on other backends."""
        config = self.outside.runtime.get("HostConfig")
        return config if isinstance(config, dict) else {}

    @cached_property
    def guest_status(self) -> Mapping[str, str]:
        """Of the status of the guest on this host what a receipt needs; {} when it is not seen or
        is gVisor's kernel."""
        return {} if self.gvisor else status_fields(self.outside.guest_status, _OF_GUEST)

    @cached_property
    def runtime(self) -> str:
        """The OCI runtime by the Engine's word, "" on other backends."""
        return str(self.host_config.get("Runtime") or "")

    @cached_property
    def gvisor(self) -> bool:
        """Whether gVisor's kernel answers inside instead of this machine's."""
        return is_gvisor(self.runtime)

    def cgroup(self, *names: str) -> tuple[str, str] | None:
        """(content, where it stands) of the first of these cgroup files, outside before inside."""
        for name in names:
            text = self.outside.cgroup.get(name)
            if text is not None:
                return text.strip(), f"cgroup {name}"
        for name in names:
            for directory in _CGROUP_INSIDE:
                text = self.view.files.get(f"{directory}/{name}")
                if text is not None:
                    return text.strip(), f"{directory}/{name} inside"
        return None

    @cached_property
    def own_user_namespace(self) -> bool:
        """Whether a command is in another user namespace than this process."""
        seen = self.view.namespaces.get("user")
        return bool(self.here) and seen is not None and seen != self.here.get("user")


def control(name: str, requested: object, enforced: object, evidence: str, *, ok: bool) -> Control:
    """One row of a receipt."""
    return _row(name, _shown(requested), _shown(enforced), ok, evidence)


_row = remembered(Control)
"""Sandboxes alike have most rows alike, which are texts only: one value stands for them all."""


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, _MANY):
        return ", ".join(str(item) for item in sorted(value, key=str)) or "none"
    return str(value)


def number(text: str | None) -> int | None:
    """A whole number, None for "max", "unlimited", nothing or nonsense."""
    try:
        return int((text or "").split()[0])
    except (ValueError, IndexError):
        return None
