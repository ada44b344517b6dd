"""A user's own profile and additions by name: checked against the built-in profile below them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringfence.errors import InvalidSpecError, PolicyDeniedError
from ringfence.policy.seccomp.groups import GUEST, group_of
from ringfence.policy.seccomp.profile import ARCHITECTURES, architecture, known_syscalls
from ringfence.policy.seccomp.profile import profile as builtin
from ringfence.spec import Security
from ringfence.spec.names import PROFILES, nearest

_REFUSING = ("SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS")
_ACTIONS = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", *_REFUSING)
_OPERATORS = tuple(f"SCMP_CMP_{name}" for name in ("EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"))
_LARGEST_FILE = 2**20
_FIELDS = ("defaultAction", "defaultErrnoRet", "architectures", "syscalls")
_ENTRY_FIELDS = ("names", "action", "args", "errnoRet", "comment")

Entries = dict[str, list[Mapping[str, Any]]]


def granted(security: Security, name: str, arch: str) -> dict[str, Any]:
    """The OCI profile of a granted spec: `security.seccomp` with `security.seccomp_allow`.

    name: the spec's profile, which bounds both. Raises InvalidSpecError for a file that is not a
    profile, PolicyDeniedError for one that is wider than the built-in it stands on.
    """
    chosen = security.seccomp or name
    found = builtin(chosen, arch) if chosen in PROFILES else load(chosen, arch, base=name)
    for syscall in security.seccomp_allow:
        reason = addition_problem(syscall, name)
        if reason:
            raise PolicyDeniedError(f"security.seccomp_allow: {reason}", op="seccomp")
    if security.seccomp_allow:
        found["syscalls"] = _with(found["syscalls"], security.seccomp_allow, name, arch)
    return found


def addition_problem(syscall: str, name: str) -> str | None:
    """Why a syscall cannot be added under a profile, or None: up to the next wider profile's."""
    if syscall not in known_syscalls():
        return f"{syscall!r} is not a syscall{nearest(syscall, known_syscalls())}"
    wider = PROFILES[min(PROFILES.index(name) + 1, len(PROFILES) - 1)]
    group = group_of(syscall, wider)
    if group is not None:
        return f"{syscall!r} cannot be added under {name!r} ({group.name}: {group.reason})"
    return None


def _with(
    entries: list[dict[str, Any]], syscalls: tuple[str, ...], name: str, arch: str
) -> list[dict[str, Any]]:
    """`entries` with the rules that the next wider profile has for these syscalls."""
    wider = PROFILES[min(PROFILES.index(name) + 1, len(PROFILES) - 1)]
    source = by_syscall(builtin(wider, arch))
    kept = [
        {**entry, "names": [each for each in entry["names"] if each not in syscalls]}
        for entry in entries
    ]
    added = [
        {**entry, "names": [syscall]}
        for syscall in dict.fromkeys(syscalls)
        for entry in source.get(syscall, ())
    ]
    return [entry for entry in kept if entry["names"]] + added


def by_syscall(profile: Mapping[str, Any]) -> Entries:
    """The entries of each syscall, in order."""
    found: Entries = {}
    for entry in profile["syscalls"]:
        for name in entry["names"]:
            found.setdefault(name, []).append(entry)
    return found


def load(path: str | Path, arch: str, *, base: str) -> dict[str, Any]:
    """An OCI profile in JSON, narrowed to the built-in profile `base` and checked.

    Only an allowlist is taken. A syscall that `base` allows on conditions keeps them. Raises
    InvalidSpecError naming file, field and value; PolicyDeniedError listing every syscall that
    `base` refuses.
    """
    arch = architecture(arch)
    own = _read(path)
    problems = _problems(own)
    if problems:
        raise InvalidSpecError(
            f"seccomp {path}: " + "; ".join(problems), op="seccomp", context={"path": str(path)}
        )
    below = by_syscall(builtin(base, arch))
    mine = by_syscall(own)
    wide = [name for name in sorted(mine) if _allows(mine[name]) and group_of(name, base)]
    if wide:
        raise PolicyDeniedError(
            f"seccomp {path}: {', '.join(wide)}: refused by profile {base!r}, which it may only"
            " narrow",
            op="seccomp",
            context={"path": str(path), "syscalls": wide},
        )
    missing = [name for name in GUEST if name in below and not _allows(mine.get(name))]
    if missing:
        raise InvalidSpecError(
            f"seccomp {path}: the guest needs {', '.join(missing)}", op="seccomp"
        )
    entries = [entry for name in sorted(mine) for entry in _narrowed(path, name, mine, below)]
    default = {key: own[key] for key in ("defaultAction", "defaultErrnoRet") if key in own}
    return {**default, "architectures": [ARCHITECTURES[arch]], "syscalls": entries}


def _read(path: str | Path) -> Any:
    try:
        with Path(path).open("rb") as file:
            text = file.read(_LARGEST_FILE + 1)
        if len(text) > _LARGEST_FILE:
            raise ValueError(f"over {_LARGEST_FILE} bytes")
        return json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidSpecError(
            f"seccomp {path}: {error}", op="seccomp", context={"path": str(path)}
        ) from None


def _problems(own: Any) -> list[str]:
    if not isinstance(own, dict):
        return ["a profile is a JSON object"]
    found = [f"{key}: no such field{nearest(key, _FIELDS)}" for key in own if key not in _FIELDS]
    if own.get("defaultAction") not in _REFUSING:
        found.append(
            f"defaultAction: {own.get('defaultAction')!r} is not a refusal such as"
            " SCMP_ACT_ERRNO: only an allowlist is taken"
        )
    if not _is_errno(own.get("defaultErrnoRet")):
        found.append(f"defaultErrnoRet: {own['defaultErrnoRet']!r} is not an errno")
    entries = own.get("syscalls")
    if not isinstance(entries, list):
        return [*found, "syscalls: a list is needed"]
    for index, entry in enumerate(entries):
        found += [f"syscalls.{index}.{problem}" for problem in _entry_problems(entry)]
    return found or _contradictions(own)


def _entry_problems(entry: Any) -> list[str]:
    if not isinstance(entry, dict):
        return ["entry: an object is needed"]
    found = [
        f"{key}: no such field{nearest(key, _ENTRY_FIELDS)}"
        for key in entry
        if key not in _ENTRY_FIELDS
    ]
    names = entry.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        found.append("names: a list of syscalls is needed")
    else:
        found += [
            f"names: {name!r} is not a syscall{nearest(name, known_syscalls())}"
            for name in names
            if name not in known_syscalls()
        ]
    if entry.get("action") not in _ACTIONS:
        action = entry.get("action")
        found.append(f"action: {action!r} is not allowed{nearest(str(action), _ACTIONS)}")
    if not _is_errno(entry.get("errnoRet")):
        found.append(f"errnoRet: {entry['errnoRet']!r} is not an errno")
    args = entry.get("args")
    if args is not None and not (
        isinstance(args, list) and all(_is_condition(arg) for arg in args)
    ):
        found.append(f"args: {args!r} are not conditions with index, value and op")
    return found


def _is_errno(value: Any) -> bool:
    return value is None or (type(value) is int and 0 < value < 4096)


def _is_condition(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() <= {"index", "value", "valueTwo", "op"}
        and type(value.get("index")) is int
        and 0 <= value["index"] <= 5
        and all(
            type(value.get(key, 0)) is int and 0 <= value.get(key, 0) < 2**64
            for key in ("value", "valueTwo")
        )
        and "value" in value
        and value.get("op") in _OPERATORS
    )


def _contradictions(own: Mapping[str, Any]) -> list[str]:
    """A rule without conditions beside another with a different action would win in silence."""
    found = []
    for name, entries in sorted(by_syscall(own).items()):
        answers = {(entry["action"], entry.get("errnoRet")) for entry in entries}
        if len(answers) > 1 and any(not entry.get("args") for entry in entries):
            found.append(f"syscalls: the rules for {name!r} contradict one another")
    return found


def _allows(entries: list[Mapping[str, Any]] | None) -> bool:
    return any(entry["action"] in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG") for entry in entries or ())


def _narrowed(
    path: str | Path, name: str, mine: Entries, below: Entries
) -> list[Mapping[str, Any]]:
    """The own rules of one syscall, with the conditions of the built-in profile."""
    own, limits = mine[name], below.get(name)
    if not _allows(own):
        return [{**entry, "names": [name]} for entry in own]
    if limits is None:
        return []
    if any(not entry.get("args") for entry in limits):
        return [{**entry, "names": [name]} for entry in own]
    if all(not entry.get("args") for entry in own):
        return [{**entry, "names": [name]} for entry in limits]
    for entry in own:
        if _allows([entry]) and not any(_implies(entry, limit) for limit in limits):
            raise PolicyDeniedError(
                f"seccomp {path}: the conditions of {name!r} are wider than the built-in ones;"
                " leave them out to get those",
                op="seccomp",
            )
    return [{**entry, "names": [name]} for entry in own]


def _implies(entry: Mapping[str, Any], limit: Mapping[str, Any]) -> bool:
    """Whether an entry has every condition of `limit`, word for word."""
    conditions = entry.get("args") or []
    indexes = [condition["index"] for condition in conditions]
    return len(set(indexes)) == len(indexes) and all(
        condition in conditions for condition in limit["args"]
    )
