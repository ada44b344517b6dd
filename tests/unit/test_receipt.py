"""The receipt is made from evidence alone: whatever is taken from it becomes a gap."""

import asyncio
import contextlib
import dataclasses
import errno
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.backends.base import Evidence, Features
from ringfence.errors import (
    GuestError,
    PolicyDeniedError,
    ResourceExhaustedError,
    SandboxError,
    SandboxLostError,
)
from ringfence.guest.control import User
from ringfence.guest.request import Exit, NotStarted
from ringfence.policy import Facts, resolve, seccomp
from ringfence.sandbox.receipt import Findings, GuestView, PathView, check, read, receipt
from ringfence.sandbox.receipt.view import parse_mounts, parse_view, status_fields
from ringfence.spec import Reason, Receipt, SandboxSpec, Security, Ulimits
from ringfence.spec.names import CONTROLS

STATUS = """Name:\tguest
Uid:\t1000\t1000\t1000\t1000
Gid:\t1000\t1000\t1000\t1000
Groups:\t1000 1007
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t00000000000000e0
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
"""
GUEST_STATUS = "Uid:\t65501\t65501\t65501\t65501\nCapPrm:\t00000000000000e0\nNoNewPrivs:\t1\n"
TMPFS = "rw,nosuid,nodev,noexec,relatime"
MOUNTINFO = f"""1 0 0:50 / / ro,relatime - overlay overlay rw,lowerdir=x
2 1 0:51 / /tmp {TMPFS} - tmpfs tmpfs rw,size=65536k,nr_inodes=65536
3 1 0:52 / /run {TMPFS} - tmpfs tmpfs rw,size=8192k,nr_inodes=8192
4 1 0:53 / /dev/shm {TMPFS} - tmpfs shm rw,size=65536k,nr_inodes=65536
5 1 8:1 /r /workspace ro,relatime - ext4 /dev/sda1 rw
6 1 0:54 / /cache rw,nosuid,nodev,noexec - tmpfs tmpfs rw,size=1m,nr_inodes=1024
"""
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max core file size        0                    0                    bytes
Max file size             1073741824           1073741824           bytes
Max open files            1024                 1024                 files
Max locked memory         65536                65536                bytes
Max msgqueue size         0                    0                    bytes
Max stack size            8388608              unlimited            bytes
"""
NET = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes
    lo:       0       0    0    0    0     0          0         0        0
"""
PROBES = {"clone3": 38, "io_uring_setup": 1, "keyctl": 1, "name_to_handle_at": 1,
          "process_vm_readv": 1, "vsock": 1}  # fmt: skip
KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
CGROUP = {
    "memory.limit_in_bytes": "536870912\n", "memory.memsw.limit_in_bytes": "536870912",
    "cpu.cfs_quota_us": "100000", "cpu.cfs_period_us": "100000", "pids.max": "288",
    "cpuset.cpus": "0", "cpu.shares": "512",
    "blkio.throttle.read_bps_device": "8:0 1048576",
}  # fmt: skip
SPEC = resolve(
    SandboxSpec.parse({
        "user": "1000",
        "repository": {"path": "/r", "mode": "ro"},
        "limits": {"cpuset": "0-1", "cpu_shares": 512, "read_rate": "1m"},
        "security": {
            "groups": [1007],
            "tmpfs": {"/cache": "1m"},
            "sysctls": {"kernel.sem": "250 32000 100 128"},
            "runtime": "runc",
        },
    }),
    Facts(memory=2**33, cpus=2, nofile=4096),
)  # fmt: skip


def record(name: str, text: str) -> bytes:
    data = text.encode()
    return f"{name} {len(data)}\n".encode() + data + b"\n"


def shown() -> bytes:
    files = {
        "/proc/self/status": STATUS, "/proc/self/mountinfo": MOUNTINFO,
        "/proc/self/limits": LIMITS, "/proc/self/net/dev": NET,
        "/proc/self/oom_score_adj": "500\n", "/proc/self/uid_map": "0 0 4294967295\n",
        "/proc/sys/kernel/sem": "250\t32000\t100\t128\n",
    }  # fmt: skip
    security = SPEC.security
    return b"".join([
        *(record(f"file:{path}", text) for path, text in files.items()),
        *(record(f"namespace:{kind}", f"{kind}:[4026532999]") for kind in KINDS if kind != "user"),
        record("namespace:user", "user:[4026531000]"),
        *(record(f"probe:{name}", str(number)) for name, number in PROBES.items()),
        *(record(f"path:{path}", "0 0 1 0") for path in security.masked_paths or ()),
        *(record(f"path:{path}", "0 1 1 0") for path in security.read_only_paths or ()),
        record("devices", "null\nzero\nfull\nshm\n"),
    ])  # fmt: skip


def findings() -> Findings:
    return Findings(
        spec=SPEC,
        outside=Evidence({"HostConfig": {"Runtime": "runc"}}, GUEST_STATUS, CGROUP),
        view=parse_view(shown()),
        here={kind: f"{kind}:[4026531000]" for kind in KINDS},
        profile=seccomp.profile("strict", "x86_64"),
    )


def test_of_what_a_guest_shows_at_length_nothing_is_kept() -> None:
    """One that is not ours any more could fill the memory of who opens its sandbox again."""
    tracemalloc.start()
    try:
        receipt(findings())
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20):
            long = STATUS.replace("1000\t1000", f"{number} " * 40_000)
            text = shown().replace(record("file:/proc/self/status", STATUS), b"")
            seen = parse_view(record("file:/proc/self/status", long) + text)
            assert "user" in gaps(dataclasses.replace(findings(), view=seen))
        del long, text, seen
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2**20


def gaps(found: Findings) -> list[str]:
    return [control.name for control in receipt(found).gaps]


def view(**changes: Any) -> Findings:
    found = findings()
    return dataclasses.replace(found, view=dataclasses.replace(found.view, **changes))


def status(**changes: str) -> Findings:
    return view(status={**findings().view.status, **changes})


def cgroup(**changes: str | None) -> Findings:
    found = findings()
    files = {name.replace("_DOT_", "."): text for name, text in changes.items()}
    merged = {**CGROUP, **files}
    kept = {name: text for name, text in merged.items() if text is not None}
    return dataclasses.replace(found, outside=dataclasses.replace(found.outside, cgroup=kept))


def mount(path: str, line: str) -> Findings:
    return view(mounts={**findings().view.mounts, **parse_mounts(line)})


def without_mount(path: str) -> Findings:
    kept = {name: one for name, one in findings().view.mounts.items() if name != path}
    return view(mounts=kept)


def path(name: str, seen: PathView) -> Findings:
    return view(paths={**findings().view.paths, name: seen})


def test_all_that_is_enforced_is_no_gap() -> None:
    assert gaps(findings()) == []


def test_values_come_from_the_evidence() -> None:
    made = receipt(findings())
    assert made["user"].enforced == "1000:1000"
    assert made["memory"].enforced == "536870912"
    assert made["pids"].enforced == "288, the guest's 32 included"
    assert made["guest"].enforced == "uid 65501, KILL, SETGID, SETUID"
    assert made["namespace net"].evidence == "a command's /proc/self/ns/net: net:[4026532999]"


def test_with_no_evidence_at_all_everything_is_a_gap() -> None:
    """No row copies the request: an empty view enforces nothing."""
    found = Findings(spec=SPEC, outside=Evidence({}), view=GuestView(), profile=findings().profile)
    made = receipt(found)
    assert [control.name for control in made.controls if control.ok] == []
    for control in made.gaps:
        assert control.enforced in UNSEEN or control.enforced.startswith("0 "), control


UNSEEN = {"none", "no", "no filter", "not shown", "no mount"}


CASES: dict[str, tuple[Callable[[], Findings], str]] = {
    "root": (lambda: status(Uid="0\t0\t0\t0"), "user"),
    "saved root": (lambda: status(Uid="1000\t1000\t0\t1000"), "user"),
    "another user": (lambda: status(Uid="1001\t1001\t1001\t1001"), "user"),
    "the guest's uid": (lambda: status(Uid="65501\t65501\t65501\t65501"), "user"),
    "the uid beside it": (lambda: status(Uid="65502\t65502\t65502\t65502"), "user"),
    "the guest's gid": (lambda: status(Gid="65501\t65501\t65501\t65501"), "user"),
    "the guest's group": (lambda: status(Groups="65501 1007"), "groups"),
    "the group beside it": (lambda: status(Groups="1007 65502"), "groups"),
    "root's group": (lambda: status(Groups="0 1007"), "groups"),
    "no group": (lambda: status(Groups="1000"), "groups"),
    "effective": (lambda: status(CapEff="0000000000000001"), "capabilities"),
    "ambient": (lambda: status(CapAmb="0000000000000001"), "capabilities"),
    "inheritable": (lambda: status(CapInh="0000000000000001"), "capabilities"),
    "bounding": (lambda: status(CapBnd="00000000a80425fb"), "capabilities"),
    "unknown capability": (lambda: status(CapBnd="0000800000000000"), "capabilities"),
    "privileges": (lambda: status(NoNewPrivs="0"), "no_new_privileges"),
    "no seccomp": (lambda: status(Seccomp="0"), "seccomp"),
    "keyctl": (lambda: view(probes={**PROBES, "keyctl": 95}), "seccomp"),
    "vsock": (lambda: view(probes={**PROBES, "vsock": 0}), "seccomp"),
    "clone3": (lambda: view(probes={**PROBES, "clone3": 7}), "seccomp"),
    "memory": (lambda: cgroup(memory_DOT_limit_in_bytes="9223372036854771712"), "memory"),
    "no cgroup": (lambda: cgroup(memory_DOT_limit_in_bytes=None), "memory"),
    "swap": (lambda: cgroup(memory_DOT_memsw_DOT_limit_in_bytes="1073741824"), "swap"),
    "cpus": (lambda: cgroup(cpu_DOT_cfs_quota_us="-1"), "cpus"),
    "cpuset": (lambda: cgroup(cpuset_DOT_cpus="0-3"), "cpuset"),
    "shares": (lambda: cgroup(cpu_DOT_shares="1024"), "cpu_shares"),
    "pids": (lambda: cgroup(pids_DOT_max="max"), "pids"),
    "many pids": (lambda: cgroup(pids_DOT_max="1000"), "pids"),
    "rate": (lambda: cgroup(blkio_DOT_throttle_DOT_read_bps_device=""), "read_rate"),
    "nofile": (lambda: view(limits={**findings().view.limits, "Max open files": (1024, 4096)}),
               "ulimits.nofile"),
    "oom score": (lambda: view(files={"/proc/self/oom_score_adj": "0"}), "oom_score_adj"),
    "sysctl": (lambda: view(files={"/proc/sys/kernel/sem": "1 2 3 4"}), "sysctl kernel.sem"),
    "root mount": (lambda: mount("/", "1 0 0:5 / / rw - overlay overlay rw"), "read_only_root"),
    "no tmp": (lambda: without_mount("/tmp"), "tmpfs /tmp"),
    "tmp size": (lambda: mount("/tmp", f"2 1 0:5 / /tmp {TMPFS} - tmpfs t rw,size=1g"),
                 "tmpfs /tmp"),
    "tmp without a limit of files": (
        lambda: mount("/tmp", f"2 1 0:5 / /tmp {TMPFS} - tmpfs t rw,size=64m"), "tmpfs /tmp",
    ),
    "tmp with more files": (
        lambda: mount("/tmp", f"2 1 0:5 / /tmp {TMPFS} - tmpfs t rw,size=64m,nr_inodes=65537"),
        "tmpfs /tmp",
    ),
    "tmp exec": (lambda: mount("/tmp", "2 1 0:5 / /tmp rw,nosuid,nodev - tmpfs t rw,size=64m"),
                 "tmpfs /tmp"),
    "disk as tmp": (lambda: mount("/tmp", f"2 1 0:5 / /tmp {TMPFS} - ext4 t rw"), "tmpfs /tmp"),
    "repository": (lambda: mount("/workspace", "5 1 8:1 /r /workspace rw - ext4 x rw"),
                   "mount /workspace"),
    "no repository": (lambda: without_mount("/workspace"), "mount /workspace"),
    "kcore": (lambda: path("/proc/kcore", PathView(0, True, False, 0)), "masked_paths"),
    "sys": (lambda: path("/proc/sys", PathView(0, True, False, 0)), "read_only_paths"),
    "device": (lambda: view(devices=frozenset({"null", "sda"})), "devices"),
    "host's net": (lambda: view(namespaces={"net": "net:[4026531000]"}), "namespace net"),
    "initial pid": (lambda: view(namespaces={"pid": "pid:[4026531836]"}), "namespace pid"),
    "interface": (lambda: view(interfaces=frozenset({"lo", "eth0"})), "network"),
    "unseen interfaces": (lambda: view(interfaces=None), "network"),
    "runtime": (lambda: dataclasses.replace(findings(), outside=Evidence(
        {"HostConfig": {"Runtime": "crun"}}, GUEST_STATUS, CGROUP)), "runtime"),
    "guest": (lambda: dataclasses.replace(findings(), outside=Evidence(
        {"HostConfig": {"Runtime": "runc"}}, GUEST_STATUS.replace("e0", "ff"), CGROUP)), "guest"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_missing_is_a_gap(name: str) -> None:
    made, control = CASES[name]
    assert control in gaps(made())


def test_cgroups_of_version_2_say_the_same() -> None:
    files = {
        "memory.max": "536870912", "memory.swap.max": "0", "cpu.max": "100000 100000",
        "pids.max": "288", "cpuset.cpus": "0-1", "cpu.weight": "20",
        "io.max": "8:0 rbps=1048576 wbps=max riops=max wiops=max",
    }  # fmt: skip
    found = findings()
    found = dataclasses.replace(found, outside=dataclasses.replace(found.outside, cgroup=files))
    assert gaps(found) == []
    files["cpu.max"] = "max 100000"
    assert gaps(found) == ["cpus"]


def test_a_disk_is_limited_where_the_storage_driver_says_so() -> None:
    limits = SPEC.limits.model_copy(update={"disk": 2**30})
    found = dataclasses.replace(findings(), spec=SPEC.model_copy(update={"limits": limits}))
    assert gaps(found) == ["disk"]
    runtime = {"HostConfig": {"Runtime": "runc", "StorageOpt": {"size": str(2**30)}}}
    outside = dataclasses.replace(found.outside, runtime=runtime)
    assert gaps(dataclasses.replace(found, outside=outside)) == []


def test_a_daemon_elsewhere_is_believed_by_what_is_seen_inside() -> None:
    """Its cgroup files are those that the sandbox sees; the word of its engine is not enough."""
    found = findings()
    inside = {f"/sys/fs/cgroup/{name}": text for name, text in {
        "memory/memory.limit_in_bytes": "536870912",
        "memory/memory.memsw.limit_in_bytes": "536870912",
        "pids/pids.max": "288",
        "cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000",
        "cpu/cpu.shares": "512", "cpuset/cpuset.cpus": "0",
    }.items()}  # fmt: skip
    outside = Evidence(found.outside.runtime)
    seen = dataclasses.replace(found.view, files={**found.view.files, **inside})
    assert gaps(dataclasses.replace(found, outside=outside, view=seen)) == ["read_rate"]
    assert "memory" in gaps(dataclasses.replace(found, outside=outside))


def test_gaps_are_refused_all_at_once_unless_they_are_allowed() -> None:
    made = receipt(status(NoNewPrivs="0", Seccomp="0"))
    with pytest.raises(PolicyDeniedError) as caught:
        check(made, SPEC)
    assert caught.value.context["controls"] == ["no_new_privileges", "seccomp"]
    allowed = SPEC.security.model_copy(update={"allow_degraded": ("seccomp", "no_new_privileges")})
    assert check(made, SPEC.model_copy(update={"security": allowed})) is made


def test_who_does_without_a_limit_of_memory_does_without_one_of_swap() -> None:
    """Where the kernel shows the whole machine's, as to a sandbox of a rootless Engine."""
    found = findings()
    inside = {f"/sys/fs/cgroup/{name}": "9223372036854771712" for name in (
        "memory/memory.limit_in_bytes", "memory/memory.memsw.limit_in_bytes",
    )}  # fmt: skip
    seen = dataclasses.replace(found.view, files={**found.view.files, **inside})
    outside = Evidence(found.outside.runtime)
    made = receipt(dataclasses.replace(found, outside=outside, view=seen))
    lacking = [row.name for row in made.gaps]
    assert {"memory", "swap"} <= set(lacking)
    named = tuple(name for name in lacking if name != "swap")
    allowed = SPEC.security.model_copy(update={"allow_degraded": named})
    assert check(made, SPEC.model_copy(update={"security": allowed})) is made


async def read_from(**ended: Any) -> Receipt:
    """The receipt where what shows the view ended so, after all of its output."""
    whole = {"reason": Reason.EXITED, "status": 0, "stdout": shown(), "stderr": b""}
    return await read_after(Exit(**{**whole, "stdout_total": len(shown()), **ended}))


async def read_after(ending: Exit | NotStarted) -> Receipt:
    ahead = asyncio.get_running_loop().create_future()
    ahead.set_result(ending)

    async def evidence() -> Evidence:
        return findings().outside

    return await read(
        SPEC,
        Features(users=True),
        SimpleNamespace(evidence=evidence),
        SimpleNamespace(hello=SimpleNamespace(reserved_uid=65501)),
        User(1000, 1000, (), "", "", ""),
        arch="x86_64",
        ahead=ahead,
    )


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EAGAIN, ResourceExhaustedError, "ulimit -u"),
        (errno.EMFILE, ResourceExhaustedError, "ulimit -n"),
        (errno.EPERM, PolicyDeniedError, "a ulimit is above the hard one"),
        (errno.EINVAL, PolicyDeniedError, "the command could not be started"),
    ],
)
async def test_what_has_run_out_where_the_view_is_shown_is_no_refusal(
    number: int, kind: type[SandboxError], words: str
) -> None:
    """Trying again later may work, which nobody does with a request that is denied."""
    with pytest.raises(kind, match=words):
        await read_after(NotStarted(number, 1, "the command could not be started"))


async def test_a_view_that_came_to_its_end_has_rows() -> None:
    assert (await read_from()).controls


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        ({"reason": Reason.SIGNALED, "status": 9}, "signal 9"),
        ({"reason": Reason.COLLATERAL, "status": 9}, "collateral"),
        ({"status": 256}, "exit code 1"),
        ({"stdout_total": 2**21}, "had more output"),
        ({"reason": Reason.SIGNALED, "status": 9, "stdout": b"", "stdout_total": 0}, "signal 9"),
    ],
)
async def test_a_view_that_was_disturbed_has_no_rows(ended: dict[str, Any], said: str) -> None:
    """What was not shown would be found missing."""
    with pytest.raises(PolicyDeniedError, match=said):
        await read_from(**ended)


async def test_a_view_that_takes_too_long_is_no_refusal() -> None:
    """As where hundreds start at once: the same request is granted a while later."""
    with pytest.raises(ResourceExhaustedError, match="20 s: the machine has too much to do"):
        await read_from(reason=Reason.TIMEOUT, status=9)


@pytest.mark.parametrize("reason", [Reason.SANDBOX_LOST, Reason.CPU_TIME])
async def test_a_view_of_a_sandbox_that_ended_is_none(reason: Reason) -> None:
    status = None if reason is Reason.SANDBOX_LOST else 9
    with pytest.raises(SandboxLostError):
        await read_from(reason=reason, status=status, stdout=b"", stdout_total=0)


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_whatever_is_shown_is_a_view_or_an_error(data: bytes) -> None:
    for output in (data, shown() + data, b"file:/proc/self/limits %d\n" % len(data) + data + b"\n"):
        with contextlib.suppress(GuestError):
            assert isinstance(parse_view(output), GuestView)


def test_a_size_of_too_many_digits_is_an_error() -> None:
    with pytest.raises(GuestError, match="makes no sense"):
        parse_view(b"file:/x " + b"9" * 5000 + b"\n")


def test_a_shown_text_is_any_bytes() -> None:
    """Sizes count bytes, and what is no UTF-8 comes as surrogates."""
    text = "gr\u00f6\u00dfe".encode() + b"\xff"
    shown = b"file:/\xc3\xa4 %d\n%s\nprobe:keyctl 1\n1\n" % (len(text), text)
    view = parse_view(shown)
    assert view.files == {"/\u00e4": "gr\u00f6\u00dfe\udcff"}
    assert view.probes == {"keyctl": 1}


def test_each_command_s_own_findings_are_its_own() -> None:
    """What is read of one output is never shown for another that differs at its end."""
    begin = b"file:/a 1\nx\ndevices 4\nnull\n"
    one = parse_view(begin + b"path:/p 7\n0 0 1 0\nprobe:keyctl 1\n1\n")
    other = parse_view(begin + b"path:/p 7\n0 1 0 0\nprobe:keyctl 1\n0\nfile:/proc/sys/b 1\n2\n")
    assert (one.files, other.files) == ({"/a": "x"}, {"/a": "x", "/proc/sys/b": "2"})
    assert (one.probes, other.probes) == ({"keyctl": 1}, {"keyctl": 0})
    assert one.paths["/p"].read_only
    assert not other.paths["/p"].read_only
    assert one.devices == other.devices == {"null"}


def test_fields_of_a_status_are_found_by_their_whole_names() -> None:
    """The first and the last line too, and no field whose name only ends alike."""
    text = "Uid:\t1\t2\nTracerPid:\t7\nPid:\t8 \nCapPrm:\t00\nNoNewPrivs:\t1"
    names = ("Uid", "Pid", "NoNewPrivs", "Prm", "Seccomp")
    assert status_fields(text, names) == {"Uid": "1\t2", "Pid": "8", "NoNewPrivs": "1"}
    assert status_fields("", names) == {}


def test_every_row_can_be_done_without_by_its_name() -> None:
    """By the name of the control, and of one row; nothing else is a name."""
    rows = [row.name for row in receipt(findings()).controls]
    names = {name.partition(" ")[0] for name in rows}
    assert names <= set(CONTROLS)
    allowed = Security.parse({"allow_degraded": [*CONTROLS, *rows]}).allow_degraded
    assert allowed == (*CONTROLS, *rows)
    ulimits = {name for name in CONTROLS if name.startswith("ulimits.")}
    assert ulimits == {f"ulimits.{name}" for name in Ulimits.model_fields}


def test_the_names_of_all_controls_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
    said = page.partition("\nThe names: ")[2].partition("Any other name")[0]
    for name in CONTROLS:
        _, dot, one = name.partition(".")
        assert f"`{name}`" in said or (dot and f"`.{one}`" in said)
