"""What a machine lacks is said with the remedy."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from ringfence.backends.process import machine
from ringfence.errors import BackendUnavailableError, ResourceExhaustedError
from ringfence.guest import build

GUEST = Path("/bin/true")


def fake_bwrap(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = directory / "bwrap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")


def test_without_bubblewrap_the_install_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendUnavailableError, match="apt-get install bubblewrap"):
        machine.look(GUEST, tmp_path)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo bubblewrap 0.6.2", "0.6; 0.8 or newer is needed"),
        ("echo what; exit 0", "--version failed"),
        ("echo bubblewrap 0.8.0; exit 1", "--version failed"),
    ],
)
def test_an_old_or_broken_bubblewrap_is_told(
    script: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_bwrap(tmp_path, script, monkeypatch)
    with pytest.raises(BackendUnavailableError, match=says):
        machine.look(GUEST, tmp_path)


def test_a_machine_that_is_full_does_not_lack_bubblewrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_bwrap(tmp_path, "echo bubblewrap 0.8.0", monkeypatch)

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(subprocess, "run", full)
    with pytest.raises(ResourceExhaustedError, match="Too many open files"):
        machine.look(GUEST, tmp_path)


def test_a_missing_guest_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_bwrap(tmp_path, "echo bubblewrap 1.2.3", monkeypatch)
    with pytest.raises(BackendUnavailableError, match=r"ringfence\.guest\.build"):
        machine.look(tmp_path / "guest", tmp_path)


def test_a_setuid_bubblewrap_is_told_to_ordinary_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_bwrap(tmp_path, "echo bubblewrap 0.8.0", monkeypatch)
    (tmp_path / "bwrap").chmod(0o4755)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(BackendUnavailableError, match="chmod u-s"):
        machine.look(GUEST, tmp_path)


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"),
        ("user/max_user_namespaces", "100", None),
    ],
)
def test_a_kernel_that_forbids_user_namespaces_is_told_which_setting(
    setting: str, value: str, remedy: str | None, tmp_path: Path
) -> None:
    path = tmp_path / setting
    path.parent.mkdir()
    path.write_text(f"{value}\n")
    told = machine.namespaces_refused(tmp_path)
    assert (told is None) if remedy is None else (told is not None and remedy in told)


@pytest.mark.parametrize(
    "words",
    [
        "bwrap: setting up uid map: Permission denied",
        "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted",
        "start namespaces: Operation not permitted",
        "write /proc/self/setgroups: Permission denied",
        "write /proc/self/uid_map: Operation not permitted",
        "enter a cgroup namespace: Operation not permitted",
        "mount /proc and /dev: Operation not permitted",
        "raise lo: Operation not permitted",
        "enter the user's namespace: Permission denied",
    ],
)
def test_apparmors_refusal_is_explained_only_where_it_is_in_force(
    words: str, tmp_path: Path
) -> None:
    """In bubblewrap's words and in a keeper's that begins a sandbox itself."""
    assert machine.explain(words, tmp_path) == words
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/apparmor_restrict_unprivileged_userns").write_text("1\n")
    assert "apparmor_restrict_unprivileged_userns=0" in machine.explain(words, tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        "bwrap: other",
        "bind /src: Permission denied",
        "mount /proc and /dev: No such file or directory",
        "enter --lifeline: Operation not permitted",
        "start /usr/bin/bwrap: Permission denied",
    ],
)
def test_what_else_fails_is_not_said_to_be_apparmors(words: str, tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/apparmor_restrict_unprivileged_userns").write_text("1\n")
    assert machine.explain(words, tmp_path) == words


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("start /usr/bin/bwrap: Resource temporarily unavailable", "ulimit -u"),
        ("bwrap: Creating new namespace failed: Resource temporarily unavailable", "ulimit -u"),
        ("bwrap: Can't open /proc: Too many open files", "ulimit -n"),
        ("bwrap: Creating new namespace failed: No space left on device", "user.max_"),
    ],
)
def test_what_has_run_out_is_explained(words: str, remedy: str) -> None:
    assert machine.explain(words).startswith(f"{words}; ")
    assert remedy in machine.explain(words)
    assert machine.explain("bwrap: No space left on device") == "bwrap: No space left on device"


@pytest.mark.parametrize("age", [60, -60])
def test_a_guest_that_is_older_than_its_sources_is_said_to_be_made_anew(
    age: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not know what it is asked for; bubblewrap's own complaints have other causes."""
    program, source = tmp_path / "guest", tmp_path / "enter.c"
    program.touch()
    source.touch()
    now = program.stat().st_mtime
    os.utime(source, (now + age, now + age))
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    monkeypatch.setattr(build, "target", lambda: program)
    told = machine.explain("enter --lifeline: Invalid argument", tmp_path)
    assert ("python -m ringfence.guest.build" in told) is (age > 0)
    assert machine.explain("bwrap: other", tmp_path) == "bwrap: other"
