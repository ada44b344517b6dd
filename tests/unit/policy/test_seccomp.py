"""The built-in profiles: what they refuse, as data, as BPF, and in a real process."""

import ctypes
import errno
import json
import platform
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.errors import InvalidSpecError
from ringfence.policy.seccomp import bpf, profile, syscalls
from ringfence.policy.seccomp.arguments import REASONS, others, rules
from ringfence.policy.seccomp.assembler import Program
from ringfence.policy.seccomp.groups import GROUPS, GUEST
from ringfence.policy.seccomp.own import by_syscall
from ringfence.spec.names import PROFILES
from tests.conftest import missing

from .machine import AUDIT, by_libseccomp, library, run

ARCHES = ("x86_64", "aarch64")
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x50000, 0x80000000


def decide(name: str, arch: str, call: str, *args: int) -> int:
    program = bpf(profile(name, arch), arch)
    return run(program, AUDIT[arch], syscalls(arch)[call], (*args, 0, 0, 0, 0, 0, 0)[:6])


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", PROFILES)
def test_every_syscall_of_a_group_is_refused_with_its_errno(name: str, arch: str) -> None:
    """What the readable source says is what the program does."""
    program, table = bpf(profile(name, arch), arch), syscalls(arch)
    assert len(program) <= 4096 * 8
    for group in GROUPS:
        for call in group.syscalls:
            if call in table:
                answer = run(program, AUDIT[arch], table[call], (0,) * 6)
                refused = ERRNO | getattr(errno, group.errno)
                assert answer == (refused if name in group.refused_by else ALLOW), call


NEVER = (
    "mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick open_tree open_tree_attr"
    " move_mount mount_setattr unshare setns bpf perf_event_open userfaultfd io_uring_setup"
    " io_uring_enter io_uring_register add_key request_key keyctl init_module finit_module"
    " delete_module kexec_load kexec_file_load reboot swapon swapoff acct quotactl quotactl_fd"
    " syslog settimeofday clock_settime open_by_handle_at fanotify_init kcmp pidfd_getfd"
)
TRACING = "ptrace process_vm_readv process_vm_writev process_madvise io_setup io_submit"


@pytest.mark.parametrize("arch", ARCHES)
def test_what_opens_the_kernel_is_refused_under_every_profile(arch: str) -> None:
    """Named here once more, so that none goes from the groups unseen."""
    for name in PROFILES:
        for call in NEVER.split():
            assert decide(name, arch, call) == ERRNO | errno.EPERM, (name, call)
        for call in ("clone3", "openat2", "fchmodat2"):
            assert decide(name, arch, call) == ERRNO | errno.ENOSYS, (name, call)
        for call in TRACING.split():
            assert (decide(name, arch, call) == ALLOW) is (name == "permissive"), (name, call)
        for call in ("msgget", "name_to_handle_at", "fanotify_mark"):
            assert (decide(name, arch, call) != ALLOW) is (name == "strict"), (name, call)


@pytest.mark.parametrize("arch", ARCHES)
def test_a_wider_profile_allows_all_that_a_narrower_one_does(arch: str) -> None:
    allowed = [
        {call for call, entries in by_syscall(profile(name, arch)).items()
         if any(entry["action"] == "SCMP_ACT_ALLOW" for entry in entries)}
        for name in PROFILES
    ]  # fmt: skip
    assert allowed[0] < allowed[1] < allowed[2]


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", PROFILES)
def test_the_guest_can_do_its_work_under_every_profile(name: str, arch: str) -> None:
    """On Docker the profile of the container binds the guest as well."""
    entries = by_syscall(profile(name, arch))
    refused = [
        call for call in GUEST
        if call in syscalls(arch)
        and not any(entry["action"] == "SCMP_ACT_ALLOW" for entry in entries.get(call, ()))
    ]  # fmt: skip
    assert refused == []


def test_groups_and_rules_name_syscalls_that_exist() -> None:
    known = set(syscalls("x86_64")) | set(syscalls("aarch64"))
    named = [call for group in GROUPS for call in group.syscalls]
    assert set(named) <= known
    assert len(named) == len(set(named))
    assert set(GUEST) <= known
    for name in PROFILES:
        assert set(rules(name)) <= known
        assert set(rules(name)) <= set(REASONS)
        assert not set(rules(name)) & set(named)


def test_the_tables_are_the_kernels() -> None:
    """The numbers of this machine's headers, where they are installed."""
    if platform.machine() not in ARCHES or shutil.which("gcc") is None:
        pytest.skip("no table for this machine, or no compiler")
    text = subprocess.run(
        ["gcc", "-E", "-dM", "-include", "asm/unistd.h", "-"],
        input="", capture_output=True, text=True, check=False,
    )  # fmt: skip
    if text.returncode:
        pytest.skip("no kernel headers here")
    table = syscalls(platform.machine())
    seen = 0
    for line in text.stdout.splitlines():
        words = line.split()
        name = words[1].removeprefix("__NR_") if len(words) == 3 else ""
        if words[1].startswith("__NR_") and words[2].isdigit() and name in table:
            assert table[name] == int(words[2]), name
            seen += 1
    assert seen > 250


HIGH = 1 << 40  # a bit above those that the kernel looks at

CASES = [
    ("clone", (0x11,), True, True),
    ("clone", (0x3D0F00,), True, True),
    ("clone", (0x10000000,), False, False),  # CLONE_NEWUSER
    ("clone", (0x00020011,), False, False),  # CLONE_NEWNS
    ("clone", (0x02000011,), False, False),  # CLONE_NEWCGROUP
    ("clone", (0x04000011,), False, False),  # CLONE_NEWUTS
    ("clone", (0x08000011,), False, False),  # CLONE_NEWIPC
    ("clone", (0x20000011,), False, False),  # CLONE_NEWPID
    ("clone", (0x40000011,), False, False),  # CLONE_NEWNET
    ("clone", (HIGH | 0x10000000,), False, False),
    ("personality", (0,), True, True),
    ("personality", (0xFFFFFFFF,), True, True),
    ("personality", (0x8,), True, True),  # PER_LINUX32
    ("personality", (0x20000,), True, True),  # UNAME26
    ("personality", (0x20008,), True, True),
    ("personality", (0x0400000,), False, False),  # READ_IMPLIES_EXEC
    ("personality", (0x0040000,), False, False),  # ADDR_NO_RANDOMIZE
    ("personality", (HIGH | 0x0040000,), False, False),
    ("socket", (1, 1, 0), True, True),
    ("socket", (2, 0x80801, 6), True, True),
    ("socket", (10, 2, 0), True, True),
    ("socket", (1, 5, 0), True, True),
    ("socket", (2, 3, 1), False, True),  # SOCK_RAW
    ("socket", (1, 3, 0), False, True),
    ("socket", (2, 5, 132), False, True),  # SOCK_SEQPACKET, of SCTP
    ("socket", (2, 9, 0), False, True),  # the kernel's type has four bits
    ("socket", (10, 3, 58), False, True),
    ("socket", (16, 3, 4), False, True),  # NETLINK_SOCK_DIAG
    ("socket", (16, 3, 16), False, True),  # NETLINK_GENERIC
    ("socket", (16, 0x80003, 0), True, True),  # NETLINK_ROUTE
    ("socket", (16, 3, 9), False, True),  # NETLINK_AUDIT
    ("socket", (16, 2, 15), False, False),  # NETLINK_KOBJECT_UEVENT
    ("socket", (16, 2, HIGH | 15), False, False),
    ("socket", (16, 3, 12), False, False),  # NETLINK_NETFILTER
    ("socket", (40, 1, 0), False, False),  # AF_VSOCK
    ("socket", (HIGH | 40, 1, 0), False, False),
    ("socket", (38, 5, 0), False, False),  # AF_ALG
    ("socket", (17, 3, 0), False, False),  # AF_PACKET
    ("socketpair", (1, 1, 0), True, True),
    ("socketpair", (30, 1, 0), False, False),  # AF_TIPC
    ("setsockopt", (0, 1, 2), True, True),  # SO_REUSEADDR
    ("setsockopt", (0, 6, 26), True, True),  # the same number of another level
    ("setsockopt", (0, 1, 26), False, False),  # SO_ATTACH_FILTER
    ("setsockopt", (0, HIGH | 1, HIGH | 26), False, False),
    ("setsockopt", (0, 1, 27), True, True),  # SO_DETACH_FILTER
    ("setsockopt", (0, 1, 51), False, False),  # SO_ATTACH_REUSEPORT_CBPF
    ("ioctl", (0, 0x5401), True, True),
    ("ioctl", (0, 0x80045430), True, True),  # TIOCGPTN
    ("ioctl", (0, 0x5412), False, False),  # TIOCSTI
    ("ioctl", (0, HIGH | 0x5412), False, False),
    ("ioctl", (0, 0x541C), False, False),  # TIOCLINUX
    ("ioctl", (0, 0x5423), False, False),  # TIOCSETD
    ("ioctl", (0, 0x5413), True, True),
    ("fcntl", (0, 3), True, True),  # F_GETFL
    ("fcntl", (0, 8, 1), True, True),  # F_SETOWN
    ("fcntl", (0, 1030, 3), True, True),  # F_DUPFD_CLOEXEC
    ("fcntl", (0, 10, 0), True, True),  # F_SETSIG
    ("fcntl", (0, 10, 29), True, True),  # SIGIO
    ("fcntl", (0, 10, 40), True, True),
    ("fcntl", (0, 10, 9), True, False),  # SIGKILL: root's alone reaches others by it
    ("fcntl", (0, HIGH | 10, HIGH | 9), True, False),
    ("fcntl", (0, 10, 19), True, False),  # SIGSTOP
    ("fcntl", (0, 10, 18), True, True),  # SIGCONT
    ("fcntl", (0, 11, 9), True, True),  # F_GETSIG
    ("mknodat", (0, 0, 0o644), True, True),
    ("mknodat", (0, 0, 0o100644), True, True),
    ("mknodat", (0, 0, 0o010644), True, True),
    ("mknodat", (0, 0, 0o140755), True, True),
    ("mknodat", (0, 0, 0o060644), False, False),  # a block device
    ("mknodat", (0, 0, 0o020644), False, False),
    ("mknodat", (0, 0, 0o104755), False, True),
    ("fchmod", (0, 0o755), True, True),
    ("fchmod", (0, 0o4755), False, True),
    ("fchmod", (0, 0o1777), True, True),
    ("fchmod", (0, 0o2755), False, True),
    ("fchmodat", (0, 0, 0o2755), False, True),
    ("openat", (0, 0, 0o102, 0o644), True, True),
    ("openat", (0, 0, 0o102, 0o4755), False, True),
    ("openat", (0, 0, 0o2, 0o4755), True, True),  # opens only: the mode is not looked at
    ("openat", (0, 0, 0o20200002, 0o4755), False, True),  # O_TMPFILE
    # of x86-64 alone:
    ("mknod", (0, 0o010644), True, True),
    ("mknod", (0, 0o020644), False, False),
    ("mknod", (0, 0o104755), False, True),
    ("chmod", (0, 0o755), True, True),
    ("chmod", (0, 0o4755), False, True),
    ("creat", (0, 0o644), True, True),
    ("creat", (0, 0o2755), False, True),
    ("open", (0, 0o102, 0o644), True, True),
    ("open", (0, 0o102, 0o4755), False, True),
    ("open", (0, 0o2, 0o4755), True, True),
    ("open", (0, 0o20200002, 0o4755), False, True),
]


@pytest.mark.parametrize(("call", "args", "strict", "permissive"), CASES)
def test_rules_by_argument(
    call: str, args: tuple[int, ...], strict: bool, permissive: bool
) -> None:
    """Whether strict and permissive let a call with these arguments through, where it exists."""
    for arch in (arch for arch in ARCHES if call in syscalls(arch)):
        assert (decide("strict", arch, call, *args) == ALLOW) is strict
        assert (decide("permissive", arch, call, *args) == ALLOW) is permissive


def test_other_architectures_and_x32_are_killed() -> None:
    """Their numbers mean other calls, so a filter by number would be passed by."""
    program = bpf(profile("strict", "x86_64"), "x86_64")
    assert run(program, 0x40000003, 20, (0,) * 6) == KILL
    assert run(program, AUDIT["x86_64"], 0x40000000 + 39, (0,) * 6) == KILL
    assert run(program, AUDIT["x86_64"], 0xFFFFFFFF, (0,) * 6) == ERRNO | errno.EPERM
    assert run(bpf(profile("strict", "aarch64"), "aarch64"), AUDIT["x86_64"], 0, (0,) * 6) == KILL


def test_unknown_syscalls_are_refused() -> None:
    for arch in ARCHES:
        program = bpf(profile("permissive", arch), arch)
        assert run(program, AUDIT[arch], 999, (0,) * 6) == ERRNO | errno.EPERM
    aarch64 = bpf(profile("permissive", "aarch64"), "aarch64")
    assert run(aarch64, AUDIT["aarch64"], 0x40000000, (0,) * 6) == ERRNO | errno.EPERM


@pytest.mark.parametrize(
    ("action", "answer"),
    [("KILL", 0), ("KILL_THREAD", 0), ("KILL_PROCESS", KILL), ("TRAP", 0x30000),
     ("ERRNO", ERRNO | errno.EPERM), ("LOG", 0x7FFC0000), ("ALLOW", ALLOW)],
)  # fmt: skip
def test_the_answers_are_the_kernels(action: str, answer: int) -> None:
    """SECCOMP_RET_* of linux/seccomp.h; to kill without more is to kill the thread."""
    entry = {"names": ["read"], "action": f"SCMP_ACT_{action}"}
    program = bpf({"defaultAction": "SCMP_ACT_KILL", "syscalls": [entry]}, "x86_64")
    assert run(program, AUDIT["x86_64"], 0, (0,) * 6) == answer
    assert run(program, AUDIT["x86_64"], 1, (0,) * 6) == 0


def test_two_conditions_on_one_argument_are_alternatives() -> None:
    """As runc reads a profile; on two arguments both must hold."""
    args = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (1, 2)]
    args.append({"index": 1, "value": 5, "op": "SCMP_CMP_EQ"})
    entry = {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args}
    program = bpf({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [entry]}, "x86_64")
    calls = {(1, 0): True, (2, 0): True, (3, 5): True, (3, 0): False}
    for two, allowed in calls.items():
        assert (run(program, AUDIT["x86_64"], 0, (*two, 0, 0, 0, 0)) == ALLOW) is allowed


@settings(deadline=None, derandomize=True)
@given(st.sets(st.integers(0, 255), max_size=5))
def test_the_others_of_a_set_are_all_the_others(values: set[int]) -> None:
    masks = others(values, 8)
    for number in range(256):
        assert any(number & mask == value for mask, value in masks) is (number not in values)


_INTERESTING = st.one_of(
    st.sampled_from([args[i] for _, args, *_ in CASES for i in range(len(args))]),
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1]),
)
_CONDITION = st.fixed_dictionaries({
    "index": st.integers(0, 5),
    "value": _INTERESTING,
    "valueTwo": _INTERESTING,
    "op": st.sampled_from([f"SCMP_CMP_{n}" for n in ("EQ", "NE", "LT", "LE", "GT", "GE")]),
})  # fmt: skip


def holds(condition: dict[str, int | str], args: list[int]) -> bool:
    value, operator = int(condition["value"]), condition["op"]
    argument = args[int(condition["index"])]
    return {
        "SCMP_CMP_EQ": argument == value,
        "SCMP_CMP_NE": argument != value,
        "SCMP_CMP_LT": argument < value,
        "SCMP_CMP_LE": argument <= value,
        "SCMP_CMP_GT": argument > value,
        "SCMP_CMP_GE": argument >= value,
    }[str(operator)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(_CONDITION, min_size=1, max_size=3, unique_by=lambda c: c["index"]),
    st.lists(st.lists(_INTERESTING, min_size=6, max_size=6), min_size=1, max_size=10),
)
def test_comparisons_are_of_64_bits(
    conditions: list[dict[str, int | str]], calls: list[list[int]]
) -> None:
    """Every operator, by halves of 32 bits, decides as a comparison of the whole does."""
    entry = {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": conditions}
    program = bpf({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [entry]}, "x86_64")
    calls += [[int(c["value"]) for c in (*conditions, *conditions * 6)][:6]]
    for args in calls:
        expected = all(holds(condition, args) for condition in conditions)
        assert (run(program, AUDIT["x86_64"], 0, args) == ALLOW) is expected


@pytest.mark.parametrize("arch", ARCHES)
def test_libseccomp_decides_the_same(arch: str) -> None:
    """The Engine hands the same profile to libseccomp: both programs answer every call alike."""
    lib = library()
    if lib is None:
        missing("libseccomp is not installed: apt-get install libseccomp2")
        return
    known = set(syscalls(arch)) - {"fchmodat2", "cachestat", "uretprobe"}
    by_args = {call: [args for name, args, *_ in CASES if name == call] for call in known}
    for name in PROFILES:
        ours = bpf(profile(name, arch), arch)
        theirs = by_libseccomp(lib, profile(name, arch), arch)
        for call in known:
            if lib.seccomp_syscall_resolve_name(call.encode()) < 0:
                continue
            number = syscalls(arch)[call]
            for args in (*by_args[call], (0,), (HIGH | 1, 1), (1, 2, 3, 4, 5, 6)):
                full = (*args, 0, 0, 0, 0, 0, 0)[:6]
                assert run(ours, AUDIT[arch], number, full) == run(
                    theirs, AUDIT[arch], number, full
                ), (name, call, args)


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", PROFILES)
def test_an_answer_stands_in_the_program_once(name: str, arch: str) -> None:
    """The kernel translates all of it for each process that installs it."""
    program = bpf(profile(name, arch), arch)
    answers = [k for code, _, _, k in struct.iter_unpack("<HBBI", program) if code == 0x06]
    assert answers.count(ALLOW) == 1
    assert len(answers) <= 6


def test_conditions_reach_further_than_one_jump_can() -> None:
    """A condition skips 255 instructions at most: what is further away is reached by a hop."""
    values = range(0, 400, 2)
    entries = [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"},
                  {"index": 1, "value": value, "op": "SCMP_CMP_LE"}]}
        for value in values
    ]  # fmt: skip
    entries.append({"names": ["write"], "action": "SCMP_ACT_ALLOW"})
    program = bpf({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": entries}, "x86_64")
    decided = [run(program, AUDIT["x86_64"], 0, (first, 7, 0, 0, 0, 0)) for first in range(402)]
    allowed = [first in values and first >= 7 for first in range(402)]
    assert [answer == ALLOW for answer in decided] == allowed
    assert run(program, AUDIT["x86_64"], 1, (0,) * 6) == ALLOW
    assert run(program, AUDIT["x86_64"], 2, (0,) * 6) == ERRNO | errno.EPERM


_PROBE = """
import ctypes, errno, json, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
program = bytes.fromhex(sys.argv[1])
class Fprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))
held = ctypes.create_string_buffer(program, len(program))
assert libc.prctl(38, 1, 0, 0, 0) == 0
fprog = Fprog(len(program) // 8, ctypes.addressof(held))
assert libc.prctl(22, 2, ctypes.byref(fprog), 0, 0) == 0, os.strerror(ctypes.get_errno())
answers = []
for number, *args in json.loads(sys.argv[2]):
    ctypes.set_errno(0)
    args = [ctypes.c_uint64(a if a >= 0 else a + 2**64) for a in args]
    result = libc.syscall(ctypes.c_long(number), *args)
    answers.append(ctypes.get_errno() if result < 0 else 0)
print(json.dumps(answers))
import threading, subprocess
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
assert subprocess.run(["true"]).returncode == 0
"""


def test_a_process_under_strict_is_refused_by_the_kernel(tmp_path: Path) -> None:
    """The program is installed for real; each rule is met by a call, and threads and children
    still start."""
    arch = platform.machine()
    if arch not in ARCHES:
        pytest.skip("no table for this machine")
    table = syscalls(arch)
    null = (2**64 - 1,) * 3
    calls = {
        "keyctl": null, "bpf": null, "ptrace": (0, 0, 0), "unshare": (0x10000000,),
        "mount": null, "io_uring_setup": null, "userfaultfd": (0,), "clone3": null,
        "openat2": null, "clone": (0x10000011,), "personality": (0x40000,), "socket": (40, 1, 0),
        "msgget": (0, 0), "fchmod": (2**64 - 1, 0o4755), "ioctl": (2**64 - 1, HIGH | 0x5412),
        "perf_event_open": null, "add_key": null, "process_vm_readv": null, "chroot": null,
    }  # fmt: skip
    enosys = {"clone3", "openat2"}
    lines = json.dumps([[table[name], *args] for name, args in calls.items()])
    program = bpf(profile("strict", arch), arch).hex()
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, program, lines], capture_output=True, text=True, timeout=60,
        cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = dict(zip(calls, json.loads(done.stdout), strict=True))
    assert answers == {name: errno.ENOSYS if name in enosys else errno.EPERM for name in calls}


def test_without_the_filter_the_kernel_answers_otherwise() -> None:
    """So that the test above shows the filter and not this machine's own refusals."""
    libc = ctypes.CDLL(None, use_errno=True)
    if platform.machine() not in ARCHES:
        pytest.skip("no table for this machine")
    libc.syscall(syscalls(platform.machine())["process_vm_readv"], -1, -1, -1, -1, -1, -1)
    assert ctypes.get_errno() == errno.EINVAL


@pytest.mark.parametrize(("name", "arch", "word"), [
    ("strikt", "x86_64", "'strict'"), ("strict", "x86-64", "'x86_64'"), ("strict", "mips", "known"),
])  # fmt: skip
def test_unknown_profiles_and_architectures_are_named(name: str, arch: str, word: str) -> None:
    with pytest.raises(InvalidSpecError, match=word):
        profile(name, arch)


def test_docker_names_of_architectures_are_understood() -> None:
    assert profile("strict", "amd64") == profile("strict", "x86_64")
    assert profile("strict", "arm64")["architectures"] == ["SCMP_ARCH_AARCH64"]


def test_a_condition_that_cannot_hold_never_does() -> None:
    """What is asked for outside of the mask, in either half."""
    for mask, value in ((0, 5), (0xFF, 1 << 40), (0xFF << 32, 5)):
        condition = {"index": 0, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
        entry = {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [condition]}
        program = bpf({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [entry]}, "x86_64")
        for argument in (0, mask, value, 2**64 - 1):
            assert run(program, AUDIT["x86_64"], 0, (argument, 0, 0, 0, 0, 0)) != ALLOW


def far(between: int) -> Program:
    """A condition that skips so many instructions to what stands after them, when it holds."""
    program = Program()
    near, behind = program.label(), program.label()
    program.emit(0x20)
    program.emit(0x15, 7, behind, near)
    program.place(near)
    for _ in range(between - 1):
        program.emit(0x20)
    program.emit(0x06, 1)
    program.place(behind)
    program.emit(0x06, 2)
    return program


@pytest.mark.parametrize("between", [254, 255, 256, 257])
def test_a_hop_is_taken_only_where_a_condition_does_not_reach(between: int) -> None:
    program = far(between).assemble()
    assert [run(program, 0, number, (0,) * 6) for number in (7, 8)] == [2, 1]
    assert len(program) == 8 * (between + 3 + (between > 255))


def test_a_program_is_as_long_as_the_kernel_takes() -> None:
    """BPF_MAXINSNS, hops counted."""
    assert len(far(4092).assemble()) == 4096 * 8
    with pytest.raises(InvalidSpecError, match="4097 instructions, the kernel takes 4096"):
        far(4093).assemble()
