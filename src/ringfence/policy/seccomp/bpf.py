"""OCI seccomp profile to classic BPF: what the guest installs in each child.

The program refuses other architectures and x32 by killing the process, finds the syscall's number
by halving the range, checks the arguments 32 bits at a time, and answers.
"""

import errno
from collections.abc import Mapping
from typing import Any

from ringfence.errors import InvalidSpecError
from ringfence.policy.seccomp.assembler import JUMP, RETURN, Program
from ringfence.policy.seccomp.profile import architecture, syscalls

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_LOAD = 0x20
_JEQ, _JGT, _JGE = 0x15, 0x25, 0x35
_AND = 0x54
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16

KILL_PROCESS, ALLOW, LOG, TRAP, ERRNO = 0x80000000, 0x7FFF0000, 0x7FFC0000, 0x30000, 0x50000
_ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_ALLOW": ALLOW,
}

Rule = tuple[int, tuple[Mapping[str, Any], ...]]
"""What to answer, and the conditions that must all hold."""


def bpf(profile: Mapping[str, Any], arch: str) -> bytes:
    """The filter as an array of `struct sock_filter`, for "x86_64" or "aarch64".

    A syscall the architecture does not have is left out. Raises InvalidSpecError for an action or
    a comparison that is not known, and for a filter the kernel would not take.
    """
    arch = architecture(arch)
    default = _answer(profile["defaultAction"], profile.get("defaultErrnoRet"))
    program = Program()
    program.emit(_LOAD, _ARCH)
    right, other = program.label(), program.label()
    program.emit(_JEQ, _AUDIT_ARCH[arch], right, other)
    program.place(other)
    program.emit(RETURN, KILL_PROCESS)
    program.place(right)
    program.emit(_LOAD, _NUMBER)
    if arch == "x86_64":
        _refuse_x32(program, default)
    _tree(program, _ranges(_by_number(profile, arch), default), default)
    return program.assemble()


def _refuse_x32(program: Program, default: int) -> None:
    """-1 is a tracer's way to skip a call and is answered by the default, as libseccomp does."""
    x32, skipped, native = program.label(), program.label(), program.label()
    program.emit(_JGE, _X32_BIT, x32, native)
    program.place(x32)
    kill = program.label()
    program.emit(_JEQ, 0xFFFFFFFF, skipped, kill)
    program.place(kill)
    program.emit(RETURN, KILL_PROCESS)
    program.place(skipped)
    program.emit(RETURN, default)
    program.place(native)


def _answer(action: str, number: int | None) -> int:
    if action not in _ACTIONS:
        raise InvalidSpecError(f"seccomp: action {action!r} is not supported", op="seccomp")
    if action == "SCMP_ACT_ERRNO":
        return ERRNO | ((errno.EPERM if number is None else number) & 0xFFFF)
    return _ACTIONS[action]


def _by_number(profile: Mapping[str, Any], arch: str) -> dict[int, list[Rule]]:
    """The rules of each syscall; one without conditions stands alone, as in libseccomp."""
    table = syscalls(arch)
    found: dict[int, list[Rule]] = {}
    for entry in profile.get("syscalls") or ():
        answer = _answer(entry["action"], entry.get("errnoRet"))
        for name in entry["names"]:
            if name in table:
                rules = found.setdefault(table[name], [])
                rules += [(answer, conditions) for conditions in _alternatives(entry)]
    for number, rules in found.items():
        plain = [rule for rule in rules if not rule[1]]
        if plain:
            found[number] = plain[:1]
    return found


def _alternatives(entry: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], ...]]:
    """As runtimes read it: two conditions on one argument are alternatives, else all must hold."""
    conditions = tuple(entry.get("args") or ())
    indexes = [condition["index"] for condition in conditions]
    if len(set(indexes)) == len(indexes):
        return [conditions]
    return [(condition,) for condition in conditions]


def _ranges(by_number: Mapping[int, list[Rule]], default: int) -> list[tuple[int, list[Rule]]]:
    """Where the numbers' answers change: (first number, rules), ascending and gapless from 0."""
    unknown: list[Rule] = [(default, ())]
    found: list[tuple[int, list[Rule]]] = []
    for number in range(max(by_number, default=0) + 2):
        rules = by_number.get(number, unknown)
        if not found or found[-1][1] != rules:
            found.append((number, rules))
    return found


def _tree(program: Program, ranges: list[tuple[int, list[Rule]]], default: int) -> None:
    if len(ranges) == 1:
        _leaf(program, ranges[0][1], default)
        return
    middle = len(ranges) // 2
    halves = ranges[:middle], ranges[middle:]
    left, right = (_plain(program, half) or program.label() for half in halves)
    program.emit(_JGE, ranges[middle][0], right, left)
    for label, half in zip((left, right), halves, strict=True):
        if _plain(program, half) is None:
            program.place(label)
            _tree(program, half, default)


def _plain(program: Program, ranges: list[tuple[int, list[Rule]]]) -> str | None:
    """Where the answer to these numbers stands, None when more than their number matters."""
    answer, conditions = ranges[0][1][0]
    return program.answer(answer) if len(ranges) == 1 and not conditions else None


def _leaf(program: Program, rules: list[Rule], default: int) -> None:
    for position, (answer, conditions) in enumerate(rules, 1):
        if not conditions:
            program.emit(JUMP, program.answer(answer))
            return
        last = position == len(rules)
        after = program.answer(default) if last else program.label()
        for condition in conditions:
            _condition(program, condition, after)
        program.emit(JUMP, program.answer(answer))
        if not last:
            program.place(after)


def _condition(program: Program, condition: Mapping[str, Any], fail: str) -> None:
    """Falls through when it holds, else jumps to `fail`."""
    low = _ARGUMENTS + 8 * condition["index"]
    value, operator = condition["value"], condition["op"]
    if operator == "SCMP_CMP_MASKED_EQ":
        _masked(program, low, value, condition.get("valueTwo", 0), fail)
    elif operator == "SCMP_CMP_EQ":
        _masked(program, low, 2**64 - 1, value, fail)
    elif operator == "SCMP_CMP_NE":
        holds = program.label()
        same = program.label()
        _masked(program, low, 2**64 - 1, value, holds)
        program.place(same)
        program.emit(JUMP, fail)
        program.place(holds)
    elif operator in _ORDERS:
        _ordered(program, low, value, _ORDERS[operator], fail)
    else:
        raise InvalidSpecError(f"seccomp: comparison {operator!r} is not supported", op="seccomp")


def _masked(program: Program, low: int, mask: int, value: int, fail: str) -> None:
    for offset, shift in ((low + 4, 32), (low, 0)):
        bits, wanted = (mask >> shift) & 0xFFFFFFFF, (value >> shift) & 0xFFFFFFFF
        if bits == 0 and wanted == 0:
            continue
        program.emit(_LOAD, offset)
        if bits != 0xFFFFFFFF:
            program.emit(_AND, bits)
        following = program.label()
        program.emit(_JEQ, wanted, following, fail)
        program.place(following)


_ORDERS = {
    "SCMP_CMP_GT": (_JGT, True),
    "SCMP_CMP_GE": (_JGE, True),
    "SCMP_CMP_LE": (_JGT, False),
    "SCMP_CMP_LT": (_JGE, False),
}
"""The comparison of the low halves, and whether it must hold or must not."""


def _ordered(program: Program, low: int, value: int, order: tuple[int, bool], fail: str) -> None:
    jump, wanted = order
    holds, equal, lower, smaller = (program.label() for _ in range(4))
    program.emit(_LOAD, low + 4)
    program.emit(_JGT, value >> 32, holds if wanted else fail, equal)
    program.place(equal)
    program.emit(_JEQ, value >> 32, lower, smaller)
    program.place(smaller)
    program.emit(JUMP, fail if wanted else holds)
    program.place(lower)
    program.emit(_LOAD, low)
    program.emit(jump, value & 0xFFFFFFFF, holds if wanted else fail, fail if wanted else holds)
    program.place(holds)
