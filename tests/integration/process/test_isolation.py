"""What a command sees and cannot do in a sandbox of processes made by root."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.backends.base import Bind
from ringfence.backends.process import ProcessBackend, ProcessInstance, creation
from ringfence.backends.process.home import homes
from ringfence.errors import (
    AlreadyExistsError,
    BackendUnavailableError,
    InvalidSpecError,
    UnsupportedError,
)
from ringfence.guest.request import ExecRequest, Exit, NotStarted
from ringfence.guest.session import Session
from ringfence.sandbox.greeting import greet
from tests.conftest import on_process
from tests.integration.process.conftest import (
    Opened,
    cgroups,
    grant,
    new_id,
    opened,
    processes,
)


def core_pattern() -> str:
    return Path("/proc/sys/kernel/core_pattern").read_text()


def namespaces(kinds: Sequence[str]) -> list[str]:
    return [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in kinds]


async def test_a_command_runs_as_its_user_without_any_privilege(opens: Opened) -> None:
    async with opens() as sandbox:
        told = await sandbox.sh("id -u; id -un; grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status")
    lines = dict(line.split(":\t") for line in told.stdout.decode().splitlines()[2:])
    assert told.stdout.startswith(b"1000\nuser\n")
    assert {lines[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")


async def test_every_namespace_but_roots_user_namespace_is_the_sandboxes_own(
    opens: Opened,
) -> None:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    async with opens() as sandbox:
        told = await sandbox.sh(f"for n in {' '.join(kinds)}; do readlink /proc/self/ns/$n; done")
        evidence = await sandbox.instance.evidence()
    inside = told.stdout.decode().split()
    outside = namespaces(kinds)
    assert len(inside) == len(kinds)
    assert not set(inside) & set(outside)
    assert evidence.runtime["namespaces"] == {"user": False}


async def test_only_the_guest_and_the_command_are_seen_and_the_guest_cannot_be_touched(
    opens: Opened,
) -> None:
    async with opens() as sandbox:
        seen = await sandbox.sh("cat /proc/1/cmdline | tr '\\0' ' '; ls /proc | grep -c '^[0-9]'")
        for act in (
            "kill -9 1",
            "cat /proc/1/environ",
            "ls /proc/1/fd",
            "python3 -c 'import resource; resource.prlimit(1, resource.RLIMIT_NOFILE, (1, 1))'",
            "echo x >> /.ringfence/guest",
            "touch /.ringfence/x",
        ):
            assert (await sandbox.sh(act)).code != 0, act
        assert (await sandbox.sh("touch /.ringfence/x", user=0)).code != 0
        assert await sandbox.session.ping() >= 0
    assert b"--socket /.ringfence" in seen.stdout
    assert int(seen.stdout.split()[-1]) < 12


async def test_the_root_is_read_only_and_holds_no_secret_of_the_host(opens: Opened) -> None:
    async with opens() as sandbox:
        for path in ("/x", "/usr/x", "/etc/x", "/var/x", "/dev/x", "/home/user/x"):
            assert (await sandbox.sh(f"touch {path}", user=0)).code != 0, path
        missing = await sandbox.sh(
            "ls /etc/shadow /etc/ssh /etc/ssl/private /etc/gitconfig /etc/docker /root/.bashrc"
            " /var/lib /boot /sys/kernel 2>/dev/null"
        )
        works = await sandbox.sh("python3 -c 'import ssl, json; print(json.dumps([1]))'; date")
    assert missing.stdout == b""
    assert works.stdout.startswith(b"[1]\n")


async def test_the_kernels_settings_are_out_of_reach_even_for_uid_0(opens: Opened) -> None:
    async with opens() as sandbox:
        for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/irq/x"):
            assert (await sandbox.sh(f"echo h > {path}", user=0)).code != 0, path
        keys = await sandbox.sh("cat /proc/keys; ls /proc/acpi", user=0)
        pattern = await sandbox.sh("cat /proc/sys/kernel/core_pattern")
    assert keys.stdout == b""
    assert pattern.stdout.strip() != b"h"
    assert pattern.stdout.decode() == core_pattern()


async def test_there_is_only_a_loopback_interface_and_it_works(opens: Opened) -> None:
    async with opens() as sandbox:
        told = await sandbox.sh(
            'python3 -c \'import socket; s=socket.create_server(("127.0.0.1", 0));'
            " c=socket.create_connection(s.getsockname()); print(socket.if_nameindex())'"
        )
        away = await sandbox.sh(
            "python3 -c 'import socket; socket.create_connection((\"192.0.2.1\", 80), 5)'"
        )
    assert told.stdout == b"[(1, 'lo')]\n"
    assert b"unreachable" in away.stderr


async def test_temporary_directories_are_sized_and_run_programs_only_when_allowed(
    opens: Opened,
) -> None:
    probe = "cp /bin/true $1/t && $1/t"
    async with opens(limits={"tmp": "1MiB", "shm": "2MiB", "run": "1MiB"}) as sandbox:
        for place, room in (("/tmp", 1), ("/dev/shm", 2), ("/run", 1)):
            full = await sandbox.sh(f"head -c 8M /dev/zero > {place}/f; stat -c %s {place}/f")
            assert full.stdout == b"%d\n" % (room * 2**20)
            assert (await sandbox.sh(f"rm {place}/f; touch {place}/g")).code == 0
            assert (await sandbox.run("/bin/sh", "-c", probe, "sh", place)).code == 126
    async with opens(profile="standard") as sandbox:
        assert (await sandbox.run("/bin/sh", "-c", probe, "sh", "/tmp")).code == 0
        assert (await sandbox.run("/bin/sh", "-c", probe, "sh", "/run")).code == 126


async def test_a_tmpfs_that_was_asked_for_is_seen_below_another(opens: Opened) -> None:
    async with opens(security={"tmpfs": {"/tmp/x": "1MiB", "/data": "1MiB"}}) as sandbox:
        told = await sandbox.sh("for n in /tmp/x /data; do echo > $n/f && stat -fc %b $n; done")
    assert told.stdout == b"256\n256\n"


async def test_binds_appear_as_asked_and_all_above_them_can_be_entered(
    opens: Opened, tmp_path: Path
) -> None:
    shared, kept = tmp_path / "shared", tmp_path / "kept"
    for path in (shared, kept):
        path.mkdir()
        path.chmod(0o777)
        (path / "f").write_text("here\n")
    binds = (Bind(str(shared), "/workspace", read_only=False), Bind(str(kept), "/data/deep/er"))
    async with opens(binds=binds) as sandbox:
        told = await sandbox.sh("cat /data/deep/er/f; echo out > /workspace/new")
        refused = await sandbox.sh("touch /data/deep/er/g")
    assert (told.code, told.stdout) == (0, b"here\n")
    assert refused.code != 0
    assert (shared / "new").read_text() == "out\n"


@pytest.mark.parametrize(
    ("wanted", "error", "says"),
    [
        ({"security": {"apparmor": "x"}}, UnsupportedError, "apparmor"),
        ({"security": {"runtime": "runsc"}}, UnsupportedError, "runtime"),
        ({"security": {"user_namespace": True}}, UnsupportedError, "user_namespace"),
        ({"limits": {"disk": "1GiB"}}, UnsupportedError, "disk"),
        ({"user": "postgres"}, InvalidSpecError, "postgres"),
    ],
)
async def test_what_cannot_be_had_is_refused_before_anything_starts(
    backend: ProcessBackend, wanted: dict[str, object], error: type[Exception], says: str
) -> None:
    spec, facts = await grant(backend, **wanted)
    sandbox_id = new_id()
    with pytest.raises(error, match=says):
        await backend.create(spec, sandbox_id, facts)
    assert await backend.found({}) == []
    assert cgroups(sandbox_id) == []


async def test_a_failed_start_says_why_and_leaves_nothing(
    backend: ProcessBackend, state_directory: Path
) -> None:
    spec, facts = await grant(backend)
    sandbox_id = new_id()
    absent = Bind("/nowhere/at/all", "/workspace")
    instance = await backend.create(spec, sandbox_id, facts, binds=(absent,))
    with pytest.raises(BackendUnavailableError, match="/nowhere/at/all"):
        await greet(instance, spec)
    await instance.delete()
    assert list(homes(state_directory / "process/sandboxes")) == []
    assert cgroups(sandbox_id) == []
    assert processes(sandbox_id) == []


async def test_a_guest_that_ends_after_it_has_answered_is_lost_not_a_failed_start(
    backend: ProcessBackend,
) -> None:
    async with opened(backend) as sandbox:
        os.kill(sandbox.instance.pid, signal.SIGKILL)
        await sandbox.session.lost
        assert await sandbox.instance.not_started() is None


async def test_an_id_is_taken_once(opens: Opened, backend: ProcessBackend) -> None:
    async with opens() as sandbox:
        spec, facts = await grant(backend)
        with pytest.raises(AlreadyExistsError):
            await backend.create(spec, sandbox.record.id, facts)
        assert (await sandbox.run("true")).code == 0


@pytest.fixture
def run_later(monkeypatch: pytest.MonkeyPatch) -> list[ExecRequest]:
    """What is run in a session after its greeting."""
    run, later = Session.run, list[ExecRequest]()

    async def noted(
        self: Session, request: ExecRequest, *more: Callable[[], None]
    ) -> Exit | NotStarted:
        later.append(request)
        return await run(self, request, *more)

    monkeypatch.setattr(Session, "run", noted)
    return later


async def test_what_a_command_sees_is_asked_along_with_the_greeting(
    state_directory: Path, run_later: list[ExecRequest]
) -> None:
    async with ringfence.open(backend="process") as sandbox:
        assert not sandbox.receipt.gaps
        assert not run_later


@pytest.mark.parametrize("expected", [(1234, 1234), (1000, 1001)])
async def test_the_receipt_is_of_the_user_that_the_guest_looked_up(
    expected: tuple[int, int],
    state_directory: Path,
    run_later: list[ExecRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def made(*args: Any, **more: Any) -> ProcessInstance:
        return ProcessInstance(*args, **{**more, "user": expected})

    monkeypatch.setattr(creation, "ProcessInstance", made)
    async with ringfence.open(backend="process") as sandbox:
        user = sandbox.receipt["user"]
        assert [(request.uid, request.gid) for request in run_later] == [(1000, 1000)]
    assert (user.enforced, user.ok) == ("1000:1000", True)


KILL = """
import os
print("killing", flush=True)
while True:
    try:
        os.kill(-1, 9)
    except OSError:
        pass
"""


async def test_a_receipt_that_another_command_disturbs_tells_of_no_gaps(
    state_directory: Path,
) -> None:
    """All was enforced at the start: what is not seen later is not known, not missing."""
    async with ringfence.open(**on_process(), detached=True, lifetime=120) as first:
        assert first.receipt.controls
        killing = await first.spawn(["python3", "-c", KILL], hold=True)
        assert await killing.stdout.readline() == b"killing\n"
    async with ringfence.open(id=first.id) as again:
        assert not again.receipt.gaps
        await again.delete()
