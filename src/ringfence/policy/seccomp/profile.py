"""OCI seccomp profiles made from the groups and the rules by argument."""

import errno
import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from ringfence.errors import InvalidSpecError
from ringfence.policy.seccomp.arguments import Conditions, rules
from ringfence.policy.seccomp.groups import GROUPS, group_of
from ringfence.spec.names import PROFILES, nearest

ARCHITECTURES: Mapping[str, str] = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
"""OCI's name of each architecture; the other one of a pair (i386, x32, arm) is left out, so its
calls kill the process."""

_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


@functools.cache
def syscalls(arch: str) -> Mapping[str, int]:
    """Number by name of every syscall of "x86_64" or "aarch64" (also "amd64", "arm64")."""
    text = resources.files(__package__).joinpath("syscalls.json").read_text(encoding="ascii")
    tables: dict[str, dict[str, int]] = json.loads(text)
    return tables[architecture(arch)]


def architecture(arch: str) -> str:
    """The kernel's name of an architecture; InvalidSpecError when there is no table for it."""
    name = _ALIASES.get(arch, arch)
    if name not in ARCHITECTURES:
        raise InvalidSpecError(
            f"seccomp: architecture {arch!r} is not known{nearest(arch, ARCHITECTURES)}",
            op="seccomp",
        )
    return name


@functools.cache
def known_syscalls() -> frozenset[str]:
    """Every syscall's name on any architecture."""
    return frozenset(name for arch in ARCHITECTURES for name in syscalls(arch))


def profile(name: str, arch: str) -> dict[str, Any]:
    """The built-in profile "strict", "standard" or "permissive" in the OCI runtime's format."""
    if name not in PROFILES:
        raise InvalidSpecError(
            f"seccomp: no built-in profile is called {name!r}{nearest(name, PROFILES)}",
            op="seccomp",
        )
    arch = architecture(arch)
    table = syscalls(arch)
    conditional = {key: value for key, value in rules(name).items() if key in table}
    plain = [
        syscall
        for syscall in sorted(table)
        if syscall not in conditional and group_of(syscall, name) is None
    ]
    entries: list[dict[str, Any]] = [{"names": plain, "action": "SCMP_ACT_ALLOW"}]
    for syscall, alternatives in sorted(conditional.items()):
        entries += [_allow(syscall, conditions) for conditions in alternatives]
    entries += _missing(name, table)
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": [ARCHITECTURES[arch]],
        "syscalls": entries,
    }


def _allow(syscall: str, conditions: Conditions) -> dict[str, Any]:
    return {
        "names": [syscall],
        "action": "SCMP_ACT_ALLOW",
        "args": [
            {
                "index": condition.index,
                "value": condition.mask,
                "valueTwo": condition.value,
                "op": "SCMP_CMP_MASKED_EQ",
            }
            for condition in conditions
        ],
    }


def _missing(name: str, table: Mapping[str, int]) -> list[dict[str, Any]]:
    """Refusals with an errno of their own; EPERM is what everything else gets."""
    return [
        {
            "names": [syscall for syscall in group.syscalls if syscall in table],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": getattr(errno, group.errno),
        }
        for group in GROUPS
        if name in group.refused_by and group.errno != "EPERM"
    ]
