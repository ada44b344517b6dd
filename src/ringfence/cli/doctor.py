"""`ringfence doctor`: what is here, what is missing, and how to get it."""

import asyncio
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ringfence.cli import output
from ringfence.cli.common import Json
from ringfence.errors import SandboxError, UnsupportedError

_FIXED_RUNC = ((1, 1, 12), "CVE-2024-21626: a leaked descriptor is a way out of the container")
_FIXED_RUNC_2025 = ((1, 2, 8), "CVE-2025-31133, -52565, -52881: mount races at the start")
_FIXED_ENGINE = ((29, 5, 1), "CVE-2026-41567: archive uploads run programs of the container")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and the remedy when it is not well.

    status: "ok", "note" (works, but know this) or "missing".
    """

    name: str
    status: str
    detail: str
    remedy: str = ""


def doctor(
    json: Json = False,
) -> int:
    """Say what this machine has: daemon, runtimes, bubblewrap, kernel; and what to install.

    Ends with 0 when at least one backend works, else with 1.
    """
    findings = [*_docker(), *_process(), *_kernel(), *_state()]
    works = [
        one.name for one in findings if one.name in ("docker", "process") and one.status == "ok"
    ]
    if json:
        output.document({"backends": works, "findings": [asdict(one) for one in findings]})
    else:
        output.table(
            ("what", "status", "detail"), [(one.name, one.status, one.detail) for one in findings]
        )
        for name, remedy in dict.fromkeys((one.name, one.remedy) for one in findings):
            if remedy:
                output.line(f"\n{name}: {remedy}")
    return 0 if works else 1


def _docker() -> Iterator[Finding]:
    try:
        info = asyncio.run(_info("docker"))
    except SandboxError as error:
        yield Finding("docker", "missing", str(error))
        return
    engine = str(info.get("ServerVersion", "?"))
    driver = info.get("CgroupDriver", "?")
    yield Finding(
        "docker", "ok", f"Engine {engine}, storage {info.get('Driver')}, cgroups by {driver}"
    )
    if driver == "none":
        yield Finding(
            "docker: limits", "note", "memory, cpus, pids cannot be enforced", _WITHOUT_CGROUPS
        )
    yield from _holes("docker engine", engine, (_FIXED_ENGINE,))
    runc = str((info.get("RuncCommit") or {}).get("ID") or _version(["runc", "--version"]))
    yield from _holes(
        "runc", _version(["runc", "--version"]) or runc, (_FIXED_RUNC, _FIXED_RUNC_2025)
    )
    runtimes = sorted(info.get("Runtimes") or {})
    if "runsc" in runtimes:
        yield Finding(
            "gvisor", "ok", 'runtime "runsc" is registered: ask for it with --runtime runsc'
        )
    else:
        yield Finding("gvisor", "missing", f"runtimes: {', '.join(runtimes)}", _GVISOR)
    options = [str(option) for option in info.get("SecurityOptions") or []]
    for name in ("seccomp", "apparmor", "selinux", "userns", "rootless"):
        there = any(f"name={name}" in option for option in options)
        yield Finding(f"daemon: {name}", "ok" if there else "note", "on" if there else "off")
    yield _quota(info)


_WITHOUT_CGROUPS = (
    "this daemon has no cgroups, and neither measures nor pauses: a rootless one needs those of"
    " version 2 (systemd.unified_cgroup_hierarchy=1 for the kernel) and systemd; to do without:"
    " --allow-degraded memory,cpus,pids"
)
_GVISOR = """apt-get install runsc; put this into /etc/docker/daemon.json and kill -HUP the daemon:
  {"runtimes": {"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--network=none"]}}}"""


def _quota(info: dict[str, Any]) -> Finding:
    driver = str(info.get("Driver"))
    backing = dict(info.get("DriverStatus") or []).get("Backing Filesystem", "")
    if driver in ("btrfs", "zfs"):
        return Finding("disk quota", "ok", f"{driver} can size a container's root")
    return Finding("disk quota", "note", f"{driver} on {backing}: sized volumes are used instead")


async def _info(name: str) -> dict[str, Any]:
    from ringfence.backends import registry

    backend = registry.load(name)
    try:
        return dict(await backend.info())  # type: ignore[attr-defined]
    finally:
        await backend.aclose()


def _process() -> Iterator[Finding]:
    """What happens when a sandbox is opened, with the limits and where need be without."""
    without: tuple[str, ...] = ()
    try:
        try:
            asyncio.run(_try_process())
        except UnsupportedError as error:
            without = tuple(error.context["controls"])
            asyncio.run(_try_process(without))
            yield Finding(
                "process: limits", "note", f"{', '.join(without)} cannot be enforced", str(error)
            )
    except SandboxError as error:
        yield Finding("process", "missing", str(error), _MORE)
        return
    who = "root" if os.geteuid() == 0 else "an ordinary user: commands have one uid"
    info = asyncio.run(_info("process"))
    version = _version([info["Bubblewrap"], "--version"])
    yield Finding("process", "ok", f"bubblewrap {version}, as {who}")
    if not info["KeeperBegins"]:
        yield Finding("process: start", "note", "by bubblewrap, which takes longer", _MORE)


async def _try_process(without: tuple[str, ...] = ()) -> None:
    """Open a sandbox and run a command in it; SandboxError says what is missing."""
    import ringfence

    security = ringfence.Security(allow_degraded=without)
    async with ringfence.open(backend="process", security=security) as sandbox:
        (await sandbox.exec(["/bin/true"])).check()


_MORE = 'docs/backends.md, "What can be missing", has a remedy for each'


def _kernel() -> Iterator[Finding]:
    yield Finding("kernel", "ok", f"{platform.release()} {platform.machine()}")
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    yield Finding("cgroups", "ok", "version 2" if unified else "version 1")
    for name, path in (
        ("apparmor", "/sys/kernel/security/apparmor"),
        ("selinux", "/sys/fs/selinux/enforce"),
    ):
        there = Path(path).exists()
        yield Finding(
            f"kernel: {name}", "ok" if there else "note", "there" if there else "not there"
        )
    yield from _core_handler()


_CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


def _core_handler() -> Iterator[Finding]:
    """Whether the kernel starts a program on the host for what crashes in a sandbox."""
    try:
        pattern = _CORE_PATTERN.read_text("utf-8", "replace").strip()
    except OSError:
        return
    if not pattern.startswith("|"):
        yield Finding("kernel: core_pattern", "ok", f"{pattern}: no program")
        return
    yield Finding(
        "kernel: core_pattern",
        "note",
        f"{pattern}: the kernel starts this program on the host, as root, with the memory of what"
        " crashed inside, whatever the core limit is",
        "sysctl kernel.core_pattern=core ends that; gVisor is not concerned",
    )


def _state() -> Iterator[Finding]:
    from ringfence.backends.state import state_directory

    try:
        yield Finding("state directory", "ok", str(state_directory()))
    except SandboxError as error:
        yield Finding("state directory", "missing", str(error))


def _holes(
    name: str, version: str, fixes: tuple[tuple[tuple[int, ...], str], ...]
) -> Iterator[Finding]:
    for fixed, hole in fixes:
        if version and _numbers(version) < fixed:
            wanted = ".".join(str(number) for number in fixed)
            yield Finding(name, "note", f"{version} is older than {wanted} ({hole})",
                          "upgrade it, unless your distribution carries the fix")  # fmt: skip


def _version(arguments: list[str]) -> str:
    run: Callable[..., Any] = subprocess.run
    try:
        text = run(arguments, capture_output=True, text=True, check=False, timeout=20).stdout
    except OSError:
        return ""
    words = text.split()
    return next((word for word in words if word[:1].isdigit()), "")


def _numbers(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("+", maxsplit=1)[0].split("-", maxsplit=1)[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
