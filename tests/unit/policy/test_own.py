"""A user's own seccomp profile only ever narrows the built-in one it stands on."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import InvalidSpecError, PolicyDeniedError
from ringfence.policy.seccomp import bpf, granted, load, profile, syscalls
from ringfence.spec import Security

from .machine import AUDIT, run

ALLOW = 0x7FFF0000
Write = Callable[[Any], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(data: Any) -> str:
        path = tmp_path / "own.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return str(path)

    return write


def answer(made: dict[str, Any], call: str, *args: int) -> int:
    return run(
        bpf(made, "x86_64"), AUDIT["x86_64"], syscalls("x86_64")[call], (*args, *(0,) * 6)[:6]
    )


def strict() -> dict[str, Any]:
    return copy.deepcopy(profile("strict", "x86_64"))


def test_the_builtin_profile_is_a_profile_of_ones_own(write: Write) -> None:
    made = load(write(strict()), "x86_64", base="strict")
    for call in ("read", "ptrace", "clone3", "socket"):
        for args in ((0, 0, 0), (1, 1, 0), (40, 1, 0)):
            assert answer(made, call, *args) == answer(strict(), call, *args)


def test_what_it_leaves_out_is_refused(write: Write) -> None:
    own = strict()
    own["syscalls"][0]["names"].remove("symlink")
    made = granted(Security(seccomp=write(own)), "strict", "x86_64")
    assert answer(made, "symlink") != ALLOW
    assert answer(made, "link") == ALLOW


def test_conditions_of_the_builtin_one_stay(write: Write) -> None:
    """An unconditional permission of what the built-in profile allows on conditions gets those."""
    own = strict()
    own["syscalls"] = [entry for entry in own["syscalls"] if "ioctl" not in entry["names"]]
    own["syscalls"].append({"names": ["ioctl"], "action": "SCMP_ACT_ALLOW"})
    made = load(write(own), "x86_64", base="strict")
    assert answer(made, "ioctl", 0, 0x5401) == ALLOW
    assert answer(made, "ioctl", 0, 0x5412) != ALLOW


@pytest.mark.parametrize("call", ["bpf", "mount", "ptrace", "unshare", "io_uring_setup"])
def test_it_opens_nothing(write: Write, call: str) -> None:
    own = strict()
    own["syscalls"].append({"names": [call], "action": "SCMP_ACT_ALLOW"})
    with pytest.raises((PolicyDeniedError, InvalidSpecError), match=call) as caught:
        load(write(own), "x86_64", base="strict")
    assert isinstance(caught.value, PolicyDeniedError)


def test_it_does_not_open_by_conditions_of_its_own(write: Write) -> None:
    own = strict()
    wide = {"index": 1, "value": 0x5412, "op": "SCMP_CMP_EQ"}
    own["syscalls"].append({"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [wide]})
    with pytest.raises(PolicyDeniedError, match="ioctl"):
        load(write(own), "x86_64", base="strict")


@pytest.mark.parametrize(
    ("call", "args"),
    [
        # half of what must hold together
        ("socket", [{"index": 0, "value": 0xFFFFFFFF, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]),
        # two on one argument are alternatives, and the second holds always
        ("clone", [
            {"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"},
            {"index": 0, "value": 0, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"},
        ]),
    ],
)  # fmt: skip
def test_part_of_the_conditions_is_not_enough(
    write: Write, call: str, args: list[dict[str, Any]]
) -> None:
    own = strict()
    own["syscalls"] = [entry for entry in own["syscalls"] if call not in entry["names"]]
    own["syscalls"].append({"names": [call], "action": "SCMP_ACT_ALLOW", "args": args})
    with pytest.raises(PolicyDeniedError, match=f"{call}.*wider"):
        load(write(own), "x86_64", base="strict")


def test_to_log_a_call_is_to_allow_it(write: Write) -> None:
    own = strict()
    own["syscalls"].append({"names": ["ptrace"], "action": "SCMP_ACT_LOG"})
    with pytest.raises(PolicyDeniedError, match="ptrace"):
        load(write(own), "x86_64", base="strict")


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_one_profile_serves_both_architectures(write: Write, arch: str) -> None:
    """What only the other one has is no hole, is left out, and nothing that the guest lacks."""
    own = strict()
    own["syscalls"] += copy.deepcopy(profile("strict", "aarch64")["syscalls"][:1])
    made = load(write(own), arch, base="strict")
    assert {name for entry in made["syscalls"] for name in entry["names"]} <= set(syscalls(arch))
    load(write(profile("strict", arch)), arch, base="strict")


def test_the_errno_of_the_default_is_kept(write: Write) -> None:
    made = load(write(strict() | {"defaultErrnoRet": 4095}), "x86_64", base="strict")
    assert answer(made, "unshare") == 0x50000 | 4095


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda own: own.update({key: value})


def _entry(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda own: own["syscalls"].append(
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"} | fields
    )


@pytest.mark.parametrize(("change", "words"), [
    (_set("defaultAction", "SCMP_ACT_ALLOW"), ("defaultAction", "SCMP_ACT_ALLOW")),
    (_set("defaultErrnoRet", 0), ("defaultErrnoRet",)),
    (_set("defaultErrnoRet", 4096), ("defaultErrnoRet", "4096")),
    (_set("sycalls", []), ("sycalls", "'syscalls'")),
    (_set("syscalls", {}), ("syscalls", "list")),
    (_entry(names=["raed"]), ("raed", "'read'")),
    (_entry(names="read"), ("names", "a list of syscalls")),
    (_entry(names=[7]), ("names", "a list of syscalls")),
    (_entry(action=[]), ("action", "[]")),
    (lambda own: own["syscalls"].append("read"), (".entry", "an object")),
    (_entry(action="SCMP_ACT_TRACE"), ("action", "SCMP_ACT_TRACE")),
    (_entry(errnoRet="x"), ("errnoRet", "x")),
    (_entry(errnoRet=True), ("errnoRet", "True")),
    (_entry(args=[{"index": 7, "value": 1, "op": "SCMP_CMP_EQ"}]), ("args",)),
    (_entry(args=[{"index": 0, "value": 1, "op": "SCMP_CMP_IS"}]), ("args", "IS")),
    (_entry(action="SCMP_ACT_ERRNO"), ("read", "contradict")),
    (_entry(action="SCMP_ACT_ERRNO", args=[{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]),
     ("read", "contradict")),
    (_entry(names=["clone3"], action="SCMP_ACT_ERRNO"), ("clone3", "contradict")),
    (lambda own: own["syscalls"][0]["names"].remove("setfsuid"), ("guest needs", "setfsuid")),
])  # fmt: skip
def test_what_is_no_profile_is_refused_by_file_field_and_value(
    write: Write, change: Callable[[dict[str, Any]], Any], words: tuple[str, ...]
) -> None:
    own = strict()
    change(own)
    with pytest.raises(InvalidSpecError) as caught:
        load(write(own), "x86_64", base="strict")
    for word in ("own.json", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize("field", [
    {"index": 6}, {"index": -1}, {"index": True}, {"index": None}, {"value": 2**64}, {"value": -1},
    {"value": None}, {"value": True}, {"valueTwo": 2**64}, {"valueTwo": -1}, {"valueTwo": "1"},
    {"more": 1},
])  # fmt: skip
def test_a_condition_is_of_an_argument_and_of_64_bits(write: Write, field: dict[str, Any]) -> None:
    own, fine = strict(), {"index": 5, "value": 2**64 - 1, "op": "SCMP_CMP_NE"}
    own["syscalls"][0]["names"].remove("getcpu")
    own["syscalls"].append({"names": ["getcpu"], "action": "SCMP_ACT_ALLOW", "args": [fine]})
    load(write(own), "x86_64", base="strict")
    bad = {key: value for key, value in (fine | field).items() if value is not None}
    own["syscalls"][-1]["args"] = [fine, bad]
    with pytest.raises(InvalidSpecError, match="are not conditions"):
        load(write(own), "x86_64", base="strict")


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100000, "null"])
def test_malformed_json_is_refused(write: Write, text: str) -> None:
    with pytest.raises(InvalidSpecError, match=r"own\.json"):
        load(write(text), "x86_64", base="strict")


def test_a_file_of_any_length_is_not_read(write: Write) -> None:
    with pytest.raises(InvalidSpecError, match=r"own\.json: over \d+ bytes"):
        load(write(" " * (1 << 24)), "x86_64", base="strict")
    longest = json.dumps(strict()).ljust(1 << 20)
    load(write(longest), "x86_64", base="strict")
    with pytest.raises(InvalidSpecError, match=r"own\.json: over \d+ bytes"):
        load(write(longest + " "), "x86_64", base="strict")


def test_rules_of_one_syscall_may_answer_otherwise_on_conditions(write: Write) -> None:
    own = strict()
    own["syscalls"] = [entry for entry in own["syscalls"] if "ioctl" not in entry["names"]]
    limits = next(entry for entry in strict()["syscalls"] if entry["names"] == ["ioctl"])
    refused = [{"index": 1, "value": 0x5401, "op": "SCMP_CMP_EQ"}]
    own["syscalls"] += [
        limits,
        {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7, "args": refused},
    ]
    made = load(write(own), "x86_64", base="strict")
    assert {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"} == {
        entry["action"] for entry in made["syscalls"] if entry["names"] == ["ioctl"]
    }


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match=r"none\.json"):
        load(tmp_path / "none.json", "x86_64", base="strict")


def test_additions_by_name_reach_the_next_wider_profile() -> None:
    made = granted(Security(seccomp_allow=("msgget",)), "strict", "x86_64")
    assert answer(made, "msgget") == ALLOW
    assert answer(profile("strict", "x86_64"), "msgget") != ALLOW
    with pytest.raises(PolicyDeniedError, match="tracing"):
        granted(Security(seccomp_allow=("ptrace",)), "strict", "x86_64")
    assert answer(granted(Security(seccomp_allow=("ptrace",)), "standard", "x86_64"), "ptrace") == (
        ALLOW
    )


def test_an_added_syscall_with_conditions_gets_those_of_the_wider_profile() -> None:
    made = granted(Security(seccomp_allow=("fchmod",)), "standard", "x86_64")
    assert answer(made, "fchmod", 0, 0o4755) == ALLOW
    made = granted(Security(seccomp_allow=("fchmod",)), "strict", "x86_64")
    assert answer(made, "fchmod", 0, 0o4755) != ALLOW
    made = granted(Security(seccomp_allow=("ioctl",)), "strict", "x86_64")
    assert answer(made, "ioctl", 0, 0x5412) != ALLOW
    assert all(entry["names"] for entry in made["syscalls"]), "no rule of nothing is left"
    made = granted(Security(seccomp_allow=("fcntl",)), "standard", "x86_64")
    assert answer(made, "fcntl", 0, 10, 9) != ALLOW, "and no others"
