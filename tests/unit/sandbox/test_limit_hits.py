"""Limits that are met are events with counters, on the stream and in the audit log."""

import asyncio
import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.backends.mock import MockBackend
from ringfence.errors import ResourceExhaustedError, SandboxLostError
from ringfence.ledger import audit
from ringfence.sandbox.context import Context
from ringfence.sandbox.hits import full


def hits(sandbox: ringfence.Sandbox) -> list[dict[str, Any]]:
    return [event.to_dict() for event in sandbox.history if event.name == "LimitHit"]


async def gone(sandbox: ringfence.Sandbox) -> None:
    while sandbox.history[-1].name != "Deleted":
        await asyncio.sleep(0.01)


async def test_output_that_was_cut_is_counted(mock: MockBackend) -> None:
    """The command goes on, and its event says how much there was."""
    mock.on(["much"], stdout="x" * 5000)
    async with ringfence.open(backend=mock) as sandbox:
        await sandbox.exec(["much"], output=1000)
        await sandbox.exec(["much"])
        assert [hit["limit"] for hit in hits(sandbox)] == ["output"]
        assert hits(sandbox)[0]["counters"] == {"stdout_total": 5000, "stderr_total": 0}


async def test_a_timeout_tells_how_long_it_was(mock: MockBackend) -> None:
    """Seconds, and the program's name."""
    async with ringfence.open(backend=mock) as sandbox:
        await sandbox.exec(["sleep", "300"], timeout=0.1)
        [hit] = hits(sandbox)
        assert (hit["limit"], hit["detail"]) == ("timeout", "sleep")
        assert hit["counters"]["duration"] >= 0.1


async def test_too_many_open_files_of_this_process_are_a_typed_error(mock: MockBackend) -> None:
    async with ringfence.open(backend=mock) as sandbox:
        for number in (errno.EMFILE, errno.ENFILE):
            refused = pytest.raises(ResourceExhaustedError, match="ulimit -n")
            with refused, sandbox._context.operation("usage"):
                raise OSError(number, os.strerror(number))
        with pytest.raises(PermissionError), sandbox._context.operation("usage"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


async def test_a_full_disk_and_no_more_processes(mock: MockBackend) -> None:
    """What the kernel says to file operations and to starts."""
    async with ringfence.open(backend=mock) as sandbox:
        mock.fail("write", errno=errno.ENOSPC)
        with pytest.raises(ringfence.FileError):
            await sandbox.files.write("/tmp/x", b"x")
        mock.fail("exec", errno=errno.EAGAIN, stage=1)
        with pytest.raises(ringfence.ResourceExhaustedError):
            await sandbox.exec(["true"])
        assert [(hit["limit"], hit["detail"]) for hit in hits(sandbox)] == [
            ("disk", "files.write"),
            ("pids", "exec"),
        ]


async def test_what_is_copied_fills_its_destination(
    mock: MockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what it is copied from."""
    monkeypatch.setattr(Context, "limited_tmpfs", {"/tmp": "tmp"})
    async with ringfence.open(backend=mock) as sandbox:
        for places in (("/tmp/x", "/data/x"), ("/data/x", "/tmp/x")):
            mock.fail("copy", errno=errno.ENOSPC)
            with pytest.raises(ringfence.FileError):
                await sandbox.files.copy(*places)
        assert [hit["limit"] for hit in hits(sandbox)] == ["disk", "tmp"]


@pytest.mark.parametrize(
    ("size", "free", "is_full"),
    [
        (32 << 20, 1020 << 10, True),
        (32 << 20, 4 << 20, False),
        (4 << 20, 1 << 20, False),
        (2 << 30, 30 << 20, True),
        (2 << 30, 60 << 20, False),
    ],
)
def test_a_disk_is_full_with_less_left_than_a_write(size: int, free: int, *, is_full: bool) -> None:
    """dd bs=1M on a small disk fails with nearly a MiB left."""
    blocks = os.statvfs_result((4096, 4096, size >> 12, free >> 12, free >> 12, 0, 0, 0, 0, 255))
    assert full(blocks) is is_full


async def test_idleness_is_one_too_and_the_audit_log_has_all(
    mock: MockBackend, tmp_path: Path
) -> None:
    """To the last event; what other sandboxes on the bus do is theirs."""
    log, bus = tmp_path / "log", ringfence.EventBus()
    async with (
        ringfence.open(backend=mock, events=bus) as other,
        ringfence.open(backend=mock, idle_timeout=0.1, audit=log, events=bus) as sandbox,
    ):
        await gone(sandbox)
        await other.exec(["true"])
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    kinds = [entry["kind"] for entry in entries]
    assert kinds == ["Opened", "Created", "LimitHit", "Deleted"]
    assert entries[2]["limit"] == "idle_timeout"
    assert audit.verify(log).ok


async def test_values_of_variables_are_not_in_the_audit_log(
    mock: MockBackend, tmp_path: Path
) -> None:
    """Their names are: tokens come in as variables."""
    log = tmp_path / "log"
    async with ringfence.open(backend=mock, audit=log, env={"TOKEN": "hunter2"}):
        pass
    assert "TOKEN" in log.read_text()
    assert "hunter2" not in log.read_text()


@pytest.mark.parametrize("login", ["hunter2", "me:hunter2", "me:hunt@hunter2"])
async def test_the_login_in_a_repository_s_url_is_not_in_the_audit_log(
    mock: MockBackend, tmp_path: Path, login: str
) -> None:
    """The mock takes no repository: that it was asked for one is in the log all the same."""
    log = tmp_path / "log"
    with pytest.raises(ringfence.UnsupportedError):
        await ringfence.open(backend=mock, audit=log, repository=f"https://{login}@host/x.git")
    assert "@host/x.git" in log.read_text()
    assert "hunter2" not in log.read_text()


async def test_a_failure_to_open_is_in_the_audit_log(mock: MockBackend, tmp_path: Path) -> None:
    """And the log is closed then."""
    log = tmp_path / "log"
    mock.fail("create", error=ringfence.ResourceExhaustedError("full"))
    with pytest.raises(ringfence.ResourceExhaustedError):
        await ringfence.open(backend=mock, audit=log)
    kinds = [json.loads(line)["kind"] for line in log.read_text().splitlines()]
    assert kinds == ["Opened", "CreateFailed"]


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
async def test_a_clock_that_is_set_changes_no_reason(
    mock: MockBackend, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """A guest that is lost within its lifetime is lost; one that is lost after it has expired."""
    wall, boot, ages = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), [0.0]
    for after, reason in ((0.0, "lost"), (3600.0, "lifetime")):
        async with ringfence.open(backend=mock, lifetime=60, idle_timeout=3600) as sandbox:
            monkeypatch.setattr(time, "time", lambda: wall + jump)
            monkeypatch.setattr(time, "clock_gettime", lambda _: boot + ages[-1])
            await asyncio.sleep(0.01)
            assert sandbox.info.state == "running"
            ages.append(after)
            mock._instances[sandbox.id].guest.die()
            told = "its lifetime has passed" if reason == "lifetime" else "is gone: "
            while not sandbox._context.session.lost.done():
                await asyncio.sleep(0)
            with pytest.raises(SandboxLostError, match=told):
                await sandbox.exec(["true"])
            assert (sandbox.info.state, sandbox.info.reason) == ("exited", reason)
            await gone(sandbox)
            with pytest.raises(SandboxLostError, match=told):
                await sandbox.exec(["true"])
        monkeypatch.undo()
        ages.append(0.0)
    assert [hit["limit"] for hit in hits(sandbox)] == ["lifetime"]
