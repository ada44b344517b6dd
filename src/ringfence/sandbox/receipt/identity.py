"""Rows of who a command is and what it may ask of the kernel."""

import errno
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.policy.users import are_reserved, is_root
from ringfence.sandbox.receipt.evidence import Findings, control
from ringfence.spec import Control
from ringfence.spec.names import CAPABILITIES

GUEST_CAPABILITIES = frozenset({"SETUID", "SETGID", "KILL"})
"""What the guest itself may keep, so that it can become each command's user and end it."""

_SETS = {"CapInh": "inheritable", "CapPrm": "permitted", "CapEff": "effective",
         "CapBnd": "bounding", "CapAmb": "ambient"}  # fmt: skip
_FILTER = "2"


def identity_rows(found: Findings) -> Iterator[Control]:
    """user, groups, capabilities, no_new_privileges, seccomp, apparmor, selinux, guest."""
    yield _user(found)
    yield _groups(found)
    yield _capabilities(found)
    yield _no_new_privileges(found)
    yield _seccomp(found)
    yield from _labels(found)
    if found.guest_status:
        yield _guest(found)


def _user(found: Findings) -> Control:
    asked = found.spec.user or ""
    uids, gids = found.view.status.get("Uid", "").split(), found.view.status.get("Gid", "").split()
    name, _, group = asked.partition(":")
    ok = len(set(uids)) == 1 and len(set(gids)) == 1
    if name.isdecimal():
        ok = ok and uids[0] == str(int(name))
    if group.isdecimal():
        ok = ok and gids[0] == str(int(group))
    if not is_root(asked):
        ok = ok and "0" not in uids
    ok = ok and not _reserved(found, (*uids, *gids))
    shown = ":".join((*sorted(set(uids)), *sorted(set(gids))))
    return control("user", asked, shown, "a command's /proc/self/status: Uid, Gid", ok=ok)


def _reserved(found: Findings, ids: Iterable[str]) -> bool:
    return are_reserved(map(int, filter(str.isdecimal, ids)), found.reserved_uid)


def _groups(found: Findings) -> Control:
    asked = {str(group) for group in found.spec.security.groups}
    text = found.view.status.get("Groups")
    has = set((text or "").split())
    ok = text is not None and asked <= has
    if not is_root(found.spec.user or ""):
        ok = ok and "0" not in has
    ok = ok and not _reserved(found, has)
    return control("groups", asked, has, "a command's /proc/self/status: Groups", ok=ok)


@functools.lru_cache(maxsize=64)
def names_of(mask: str) -> frozenset[str]:
    """Capabilities of a hexadecimal mask of proc(5); unknown bits by their number."""
    bits = int(mask, 16)
    known = {name for bit, name in enumerate(CAPABILITIES) if bits >> bit & 1}
    more = {str(bit) for bit in range(len(CAPABILITIES), bits.bit_length()) if bits >> bit & 1}
    return frozenset(known | more)


def _capabilities(found: Findings) -> Control:
    granted = frozenset(found.spec.security.capabilities or ())
    shown, ok = _held(tuple(found.view.status.get(name) for name in _SETS), granted)
    return control("capabilities", granted, shown, "a command's /proc/self/status: Cap*", ok=ok)


@functools.lru_cache(maxsize=64)
def _held(masks: tuple[str | None, ...], granted: frozenset[str]) -> tuple[str, bool]:
    """What these masks of the sets say in words, and whether that is no more than is granted."""
    has: dict[str, frozenset[str]] = {}
    ok = True
    for (name, words), mask in zip(_SETS.items(), masks, strict=True):
        if mask is None:
            ok = ok and name == "CapAmb"
            continue
        has[words] = names_of(mask)
        most = granted | GUEST_CAPABILITIES if name == "CapBnd" else granted
        ok = ok and has[words] <= most
    shown = "; ".join(
        f"{words}: {', '.join(sorted(names))}" for words, names in has.items() if names
    )
    return shown if has else "not shown", ok


def _no_new_privileges(found: Findings) -> Control:
    text = found.view.status.get("NoNewPrivs")
    if text is None and found.gvisor:
        # gVisor does not show it, and never raises privileges when a file is executed.
        options = found.host_config.get("SecurityOpt") or ()
        ok = any(str(option).startswith("no-new-privileges") for option in options)
        return control("no_new_privileges", True, ok, "the engine: SecurityOpt", ok=ok)
    ok = text == "1"
    return control(
        "no_new_privileges", True, ok, "a command's /proc/self/status: NoNewPrivs", ok=ok
    )


def answers(profile: Mapping[str, Any], syscall: str) -> int | None:
    """The errno that an OCI profile refuses every call of a syscall with, None when it does not."""
    entries = [entry for entry in profile.get("syscalls", ()) if syscall in entry["names"]]
    if any(entry["action"] in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG") for entry in entries):
        return None
    refusals = [entry for entry in entries if entry["action"] == "SCMP_ACT_ERRNO"]
    if entries and not refusals:
        return None
    default = profile.get("defaultErrnoRet") or errno.EPERM
    return next((entry.get("errnoRet") or errno.EPERM for entry in refusals), default)


def _seccomp(found: Findings) -> Control:
    asked = found.spec.security.seccomp
    status, probes = found.view.status, found.view.probes
    filtered = status.get("Seccomp") == _FILTER
    refused = {name for name, number in probes.items() if number in (errno.EPERM, errno.ENOSYS)}
    profile = _This(found.profile)
    expected = {name for name in probes if _expected(profile, name)}
    ok = filtered and expected <= refused
    shown = f"filter, refuses {', '.join(sorted(refused))}" if filtered else "no filter"
    if not filtered and found.gvisor:
        # None of these calls reaches the host's kernel, which is what the profile is for.
        ok, shown = True, "gVisor's kernel answers every call itself"
    missing = sorted(expected - refused)
    if missing and filtered:
        shown += f"; lets through {', '.join(missing)}"
    return control(
        "seccomp", asked, shown, "a command's /proc/self/status: Seccomp, and calls made", ok=ok
    )


@dataclass(frozen=True, slots=True, eq=False)
class _This:
    """A profile as itself, not as what it holds: sandboxes alike have the same one."""

    profile: Mapping[str, Any]

    def __hash__(self) -> int:
        return id(self.profile)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _This) and other.profile is self.profile


@functools.lru_cache(maxsize=256)
def _expected(this: _This, probe: str) -> bool:
    """Whether the profile refuses what the guest probes."""
    profile = this.profile
    if probe == "vsock":
        return not any(
            "socket" in entry["names"] and not entry.get("args")
            for entry in profile.get("syscalls", ())
        )
    return answers(profile, probe) is not None


def _labels(found: Findings) -> Iterator[Control]:
    current = found.view.files.get("/proc/self/attr/current", "").strip("\0\n ")
    evidence = "a command's /proc/self/attr/current"
    asked = found.spec.security.apparmor
    if asked is not None:
        ok = current in (asked, f"{asked} (enforce)")
        yield control("apparmor", asked, current, evidence, ok=ok)
    asked = found.spec.security.selinux
    if asked is not None:
        yield control("selinux", asked, current, evidence, ok=asked in current.split(":"))


def _guest(found: Findings) -> Control:
    """The first process: what it keeps binds what an attack on it could win."""
    status = found.guest_status
    most = GUEST_CAPABILITIES | frozenset(found.spec.security.capabilities or ())
    asked = "at most SETUID, SETGID, KILL"
    if _own_user_namespace(found):
        # Good for nothing outside of it: it gives each command a pid namespace.
        most, asked = frozenset({"SYS_ADMIN"}), "at most SYS_ADMIN in a user namespace of its own"
    has = names_of(status.get("CapPrm", "0"))
    ok = has <= most and status.get("NoNewPrivs") == "1"
    uid = status.get("Uid", "").split()[:1]
    shown = f"uid {''.join(uid)}, {', '.join(sorted(has)) or 'no capability'}"
    return control("guest", asked, shown, "the guest's /proc/PID/status", ok=ok)


def _own_user_namespace(found: Findings) -> bool:
    namespaces = found.outside.runtime.get("namespaces")
    return isinstance(namespaces, Mapping) and namespaces.get("user") is True
