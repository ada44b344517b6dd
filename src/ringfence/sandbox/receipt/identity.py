"""Rows of who a command is and what it may ask of the kernel."""

import errno
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.policy.users import are_reserved, is_root
from ringfence.sandbox.receipt.evidence import Findings, control, remembered
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
    status = found.view.status
    uids, gids = status.get("Uid", ""), status.get("Gid", "")
    return _user_row(found.spec.user or "", uids, gids, found.reserved_uid)


@remembered
def _user_row(asked: str, uids_seen: str, gids_seen: str, reserved: int) -> Control:
    uids, gids = uids_seen.split(), gids_seen.split()
    name, _, group = asked.partition(":")
    ok = len(set(uids)) == 1 and len(set(gids)) == 1
    if name.isdecimal():
        ok = ok and uids[0] == str(int(name))
    if group.isdecimal():
        ok = ok and gids[0] == str(int(group))
    if not is_root(asked):
        ok = ok and "0" not in uids
    ok = ok and not _reserved((*uids, *gids), reserved)
    shown = ":".join((*sorted(set(uids)), *sorted(set(gids))))
    return control("user", asked, shown, "a command's /proc/self/status: Uid, Gid", ok=ok)


def _reserved(ids: Iterable[str], reserved: int) -> bool:
    return are_reserved(map(int, filter(str.isdecimal, ids)), reserved)


def _groups(found: Findings) -> Control:
    root = is_root(found.spec.user or "")
    asked, seen = found.spec.security.groups, found.view.status.get("Groups")
    return _groups_row(tuple(map(str, asked)), seen, root, found.reserved_uid)


@remembered
def _groups_row(asked: tuple[str, ...], seen: str | None, root: bool, reserved: int) -> Control:
    has = set((seen or "").split())
    ok = seen is not None and has.issuperset(asked)
    if not root:
        ok = ok and "0" not in has
    ok = ok and not _reserved(has, reserved)
    return control("groups", asked, has, "a command's /proc/self/status: Groups", ok=ok)


@remembered
def names_of(mask: str) -> frozenset[str]:
    """Capabilities of a hexadecimal mask of proc(5); unknown bits by their number."""
    bits = int(mask, 16)
    known = {name for bit, name in enumerate(CAPABILITIES) if bits >> bit & 1}
    more = {str(bit) for bit in range(len(CAPABILITIES), bits.bit_length()) if bits >> bit & 1}
    return frozenset(known | more)


def _capabilities(found: Findings) -> Control:
    masks = tuple([found.view.status.get(name) for name in _SETS])
    return _capabilities_row(found.spec.security.capabilities or (), masks)


@remembered
def _capabilities_row(asked: tuple[str, ...], masks: tuple[str | None, ...]) -> Control:
    granted = frozenset(asked)
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
    where = "a command's /proc/self/status: Cap*"
    return control("capabilities", granted, shown if has else "not shown", where, ok=ok)


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
    return _seccomp_row(
        found.spec.security.seccomp,
        found.view.status.get("Seccomp") == _FILTER,
        tuple(found.view.probes.items()),
        _This(found.profile),
        found.gvisor,
    )


@remembered
def _seccomp_row(
    asked: str | None,
    filtered: bool,
    probes: tuple[tuple[str, int], ...],
    profile: "_This",
    gvisor: bool,
) -> Control:
    refused = {name for name, number in probes if number in (errno.EPERM, errno.ENOSYS)}
    expected = {name for name, _ in probes if _expected(profile.profile, name)}
    ok = filtered and expected <= refused
    shown = f"filter, refuses {', '.join(sorted(refused))}" if filtered else "no filter"
    if not filtered and gvisor:
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


def _expected(profile: Mapping[str, Any], probe: str) -> bool:
    """Whether the profile refuses what the guest probes."""
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
    return _guest_row(
        found.spec.security.capabilities or (),
        _own_user_namespace(found),
        status.get("Uid", ""),
        status.get("CapPrm", "0"),
        status.get("NoNewPrivs"),
    )


@remembered
def _guest_row(
    granted: tuple[str, ...], apart: bool, uids: str, permitted: str, no_new_privileges: str | None
) -> Control:
    most, asked = GUEST_CAPABILITIES | frozenset(granted), "at most SETUID, SETGID, KILL"
    if apart:
        # Good for nothing outside of it: it gives each command a pid namespace.
        most, asked = frozenset({"SYS_ADMIN"}), "at most SYS_ADMIN in a user namespace of its own"
    has = names_of(permitted)
    ok = has <= most and no_new_privileges == "1"
    shown = f"uid {''.join(uids.split()[:1])}, {', '.join(sorted(has)) or 'no capability'}"
    return control("guest", asked, shown, "the guest's /proc/PID/status", ok=ok)


def _own_user_namespace(found: Findings) -> bool:
    namespaces = found.outside.runtime.get("namespaces")
    return isinstance(namespaces, Mapping) and namespaces.get("user") is True
