"""What `doctor` makes of an Engine's description of itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.cli import doctor
from ringfence.cli.doctor import Finding
from ringfence.errors import BackendUnavailableError, SandboxError, UnsupportedError


def findings(monkeypatch: pytest.MonkeyPatch, **info: Any) -> Iterator[Finding]:
    async def told(name: str) -> dict[str, Any]:
        assert name == "docker"
        return {"ServerVersion": "99.0", "Driver": "overlay2", **info}

    monkeypatch.setattr(doctor, "_info", told)
    monkeypatch.setattr(doctor, "_version", lambda args: "99.0")
    return doctor._docker()


def test_gvisor_is_explained_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {one.name: one for one in findings(monkeypatch, Runtimes={"runc": {}})}
    assert found["gvisor"].status == "missing"
    for words in ("apt-get install runsc", "/etc/docker/daemon.json", '"path": "/usr/bin/runsc"'):
        assert words in found["gvisor"].remedy
    assert len(found["gvisor"].remedy.splitlines()) == 2


def test_gvisor_is_offered_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {one.name: one for one in findings(monkeypatch, Runtimes={"runc": {}, "runsc": {}})}
    assert found["gvisor"].status == "ok"
    assert "--runtime runsc" in found["gvisor"].detail


def test_what_the_daemon_enforces_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["name=seccomp,profile=default", "name=apparmor"]
    found = {one.name: one.status for one in findings(monkeypatch, SecurityOptions=options)}
    assert found["daemon: seccomp"] == found["daemon: apparmor"] == "ok"
    assert found["daemon: selinux"] == "note"


def test_a_daemon_without_cgroups_is_told_with_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {one.name: one for one in findings(monkeypatch, CgroupDriver="none")}
    assert found["docker: limits"].status == "note"
    assert "--allow-degraded memory,cpus,pids" in found["docker: limits"].remedy
    assert "docker: limits" not in {
        one.name for one in findings(monkeypatch, CgroupDriver="systemd")
    }


@pytest.mark.parametrize(("driver", "status"), [("btrfs", "ok"), ("overlay2", "note")])
def test_sizes_are_told_where_the_backend_takes_them(
    monkeypatch: pytest.MonkeyPatch, driver: str, status: str
) -> None:
    """overlay2 on xfs has them with project quotas alone, which no Engine tells: it is refused."""
    backing = [["Backing Filesystem", "xfs"]]
    found = findings(monkeypatch, Driver=driver, DriverStatus=backing)
    assert {one.name: one.status for one in found}["disk quota"] == status


def tried(
    monkeypatch: pytest.MonkeyPatch, *errors: SandboxError, begins: bool = True
) -> dict[str, Finding]:
    """What is found when sandboxes of processes fail with these errors, then work."""
    coming = iter(errors)
    seen: list[tuple[str, ...]] = []

    async def attempt(without: tuple[str, ...] = ()) -> None:
        seen.append(without)
        if error := next(coming, None):
            raise error

    async def told(name: str) -> dict[str, Any]:
        assert name == "process"
        return {"Bubblewrap": "/usr/bin/bwrap", "KeeperBegins": begins}

    monkeypatch.setattr(doctor, "_try_process", attempt)
    monkeypatch.setattr(doctor, "_info", told)
    found = {one.name: one for one in doctor._process()}
    assert seen in ([()], [(), ("memory", "pids")])
    return found


def test_limits_that_cannot_hold_are_a_note_and_the_rest_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lacking = UnsupportedError("do this", op="create", context={"controls": ["memory", "pids"]})
    found = tried(monkeypatch, lacking)
    assert found["process"].status == "ok"
    limits = found["process: limits"]
    assert (limits.status, limits.remedy) == ("note", "do this")
    assert limits.detail == "memory, pids cannot be enforced"
    broken = BackendUnavailableError("no user namespaces", op="open")
    assert tried(monkeypatch, lacking, broken)["process"].status == "missing"


@pytest.mark.parametrize("begins", [True, False])
def test_a_start_that_takes_longer_for_bubblewrap_is_told(
    monkeypatch: pytest.MonkeyPatch, begins: bool
) -> None:
    found = tried(monkeypatch, begins=begins)
    assert found["process"].status == "ok"
    assert ("process: start" in found) is not begins


def test_a_backend_that_cannot_start_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tried(monkeypatch, BackendUnavailableError("apt-get install bubblewrap", op="open"))
    assert [(one.name, one.status) for one in found.values()] == [("process", "missing")]
    assert found["process"].detail == "apt-get install bubblewrap"


@pytest.mark.parametrize(
    ("pattern", "status"),
    [("|/usr/share/apport/apport %p\n", "note"), ("core\n", "ok"), ("/var/cores/%e\n", "ok")],
)
def test_a_core_handler_of_the_host_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pattern: str, status: str
) -> None:
    """It runs as root on the host for each crash inside, whatever the core limit is."""
    (tmp_path / "core_pattern").write_text(pattern)
    monkeypatch.setattr(doctor, "_CORE_PATTERN", tmp_path / "core_pattern")
    found = {one.name: one for one in doctor._kernel()}["kernel: core_pattern"]
    assert found.status == status
    assert pattern.strip() in found.detail
    assert ("sysctl kernel.core_pattern=core" in found.remedy) == (status == "note")
