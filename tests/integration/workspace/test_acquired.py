"""A repository that a member of a pool gets as it is acquired."""

import asyncio
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

import ringfence
from ringfence import Ceiling, Repository, SandboxSpec, State
from ringfence.backends import late_binds
from ringfence.backends.base import Bind
from ringfence.errors import (
    InvalidSpecError,
    NotFoundError,
    PolicyDeniedError,
    ResourceExhaustedError,
    SandboxLostError,
    UnsupportedError,
)
from ringfence.ledger import Ledger
from ringfence.sandbox import binds
from ringfence.workspace import mounts
from tests.conftest import give, require_gvisor, require_root, wait_for
from tests.images import DEBIAN
from tests.integration.workspace.conftest import (
    BACKENDS,
    check_hidden_and_guarded,
    opened_on,
    shell,
)
from tests.integration.workspace.test_sources import served as served  # noqa: PLC0414 - a fixture
from tests.unit.workspace.conftest import digest_of_tree, git

CLIENT = """
import asyncio, json, sys
import ringfence

async def main():
    spec = ringfence.SandboxSpec.parse(json.loads(sys.argv[1]))
    async with ringfence.pool(spec, size=1) as pool:
        async with pool.acquire(repository=sys.argv[2]) as sandbox:
            await sandbox.exec(["touch", "made"])
            print(sandbox.id, flush=True)
            await asyncio.sleep(1000)

asyncio.run(main())
"""

OFTEN = """
import asyncio, json, sys
import ringfence

async def main():
    spec = ringfence.SandboxSpec.parse(json.loads(sys.argv[1]))
    async with ringfence.pool(spec, size=2) as pool:
        await pool.fill()
        print("begin", flush=True)
        while True:
            async with pool.acquire(repository=sys.argv[2]) as sandbox:
                await sandbox.exec(["touch", "made"])

asyncio.run(main())
"""


@pytest.fixture(params=BACKENDS)
def spec(request: pytest.FixtureRequest, state_directory: Path) -> SandboxSpec:
    require_root()
    return SandboxSpec.parse(opened_on(request.param))


@pytest.fixture
def process(state_directory: Path) -> SandboxSpec:
    require_root()
    return SandboxSpec.parse(opened_on("process"))


def left_in(state: Path) -> list[Path]:
    """Mounts, and directories of workspaces."""
    workspaces = state / "workspaces"
    made = [] if not workspaces.exists() else [*workspaces.glob("[0-9a-f]*")]
    return [*mounts.mounted_below(state), *made]


async def test_a_member_is_as_if_it_had_been_opened_with_it(
    spec: SandboxSpec, repository: Path, state_directory: Path, tmp_path: Path
) -> None:
    """Its directory, variables, spec, receipt, record and workspace, from the first command on."""
    before = digest_of_tree(repository)
    log = tmp_path / "audit"
    async with ringfence.pool(spec, size=1, audit=log) as pool:
        await pool.fill()
        (waiting,) = pool._stock.ready
        async with pool.acquire(repository=repository) as sandbox:
            assert sandbox is waiting
            assert pool.statistics.hits == 1
            assert await shell(sandbox, "pwd; ls -A") == (
                "/workspace\n.git\nREADME.md\nlink\nrun.sh\nsrc\n"
            )
            async with ringfence.open(spec, user="1000", repository=repository) as opened:
                look = "stat -c '%u:%g %a %n' . README.md src/code.py; env | grep ^GIT | sort; id"
                assert await shell(sandbox, look) == await shell(opened, look)
                for name in ("repository", "cwd", "env", "user", "limits", "security"):
                    assert getattr(sandbox.spec, name) == getattr(opened.spec, name), name
                rows = [control.name for control in opened.receipt.controls]
                assert [control.name for control in sandbox.receipt.controls] == rows
                assert sandbox.workspace.strategy == opened.workspace.strategy
                assert sandbox.workspace.warnings == opened.workspace.warnings
            row = sandbox.receipt["mount /workspace"]
            assert (row.ok, row.enforced) == (True, "writable")
            assert sandbox.info.id == sandbox.id
            entry = Ledger.default().get(sandbox.id)
            directory = sandbox.workspace.prepared.directory
            assert entry.workspace == {"directory": str(directory)}
            assert entry.record.spec.repository == sandbox.spec.repository
            await shell(
                sandbox, "echo more >> README.md; mkdir out; echo x > out/report; rm run.sh"
            )
            work = sandbox.workspace
            assert (await work.changes()).of("deleted") == ("run.sh",)
            assert "3 files changed" in await work.summary()
            told = await asyncio.to_thread(ringfence_cli, "diff", sandbox.id)
            assert told == await work.patch() != b""
            assert await work.download(["out"], tmp_path / "got") == ["out/report"]
            assert digest_of_tree(repository) == before
            await work.apply()
            assert (repository / "README.md").read_text() == "A project.\nmore\n"
            assert not (repository / "run.sh").exists()
            await work.discard()
            assert await shell(sandbox, "cat README.md") == "A project.\n"
            assert [event.name for event in sandbox.history][:2] == ["Created", "RepositoryBound"]
        assert await sandbox.state() is State.EXITED
        assert not directory.exists()
        assert entry.record.id not in [one.record.id for one in Ledger.default().live()]
    assert left_in(state_directory) == []
    told = [json.loads(line) for line in log.read_text().splitlines()]
    (bound,) = [one for one in told if one["kind"] == "RepositoryBound"]
    assert bound["sandbox"] == sandbox.id
    assert str(repository) in json.dumps(bound)


def ringfence_cli(*args: str) -> bytes:
    return subprocess.run(
        [sys.executable, "-m", "ringfence", *args], capture_output=True, check=True, timeout=60
    ).stdout


@pytest.mark.parametrize("mode", ["ro", "rw"])
async def test_what_is_hidden_and_guarded_is_so_in_a_bound_one(
    spec: SandboxSpec, mode: Literal["ro", "rw"], repository: Path, state_directory: Path
) -> None:
    (repository / "vendor/.git").mkdir(parents=True)
    (repository / "vendor/.git/config").write_text("token\n")
    async with (
        ringfence.pool(spec, size=1) as pool,
        pool.acquire(repository=Repository(path=str(repository), mode=mode)) as sandbox,
    ):
        await check_hidden_and_guarded(sandbox, mode)
        line = await shell(sandbox, "grep ' /workspace ' /proc/self/mountinfo")
        options = line.split()[5].split(",")
        assert {"nosuid", "nodev", mode} <= set(options)
        assert sandbox.receipt["mount /workspace"].ok
    assert (repository / ".env").read_text() == "TOKEN=hunter2\n"
    assert left_in(state_directory) == []


async def test_a_copy_hides_what_is_excluded_and_has_its_size(
    spec: SandboxSpec, repository: Path, state_directory: Path
) -> None:
    wanted = Repository(
        path=str(repository), exclude=("src/data.bin",), size="32m", mount_point="/srv/deep/code"
    )
    async with ringfence.pool(spec, size=1) as pool, pool.acquire(repository=wanted) as sandbox:
        assert await shell(sandbox, "pwd; ls src; cat .env 2>/dev/null || true") == (
            "/srv/deep/code\ncode.py\n"
        )
        full = await sandbox.exec(shell="head -c 80m /dev/zero > big")
        assert full.exit_code != 0
    assert left_in(state_directory) == []


async def test_forks_and_snapshots_of_one_start_from_its_state(
    spec: SandboxSpec, repository: Path, state_directory: Path
) -> None:
    async with ringfence.pool(spec, size=1) as pool:
        async with pool.acquire(repository=repository) as sandbox:
            await shell(sandbox, "echo more >> README.md")
            kept = await sandbox.snapshot()
            (fork,) = await sandbox.fork(1)
            async with fork:
                assert await shell(fork, "tail -n 1 README.md; pwd") == "more\n/workspace\n"
        async with ringfence.open(spec, snapshot=kept.digest, repository=repository) as again:
            assert await shell(again, "tail -n 1 README.md") == "more\n"
    assert left_in(state_directory) == []


async def test_a_link_inside_is_not_followed(spec: SandboxSpec, tmp_path: Path) -> None:
    """Nor one above the mount point, nor one of the kernel's own: nothing is mounted anywhere."""
    async with ringfence.open(spec) as sandbox:
        await shell(sandbox, "ln -s /etc /tmp/link; ln -s /proc/1/root /tmp/root; mkdir /tmp/real")
        instance: Any = sandbox._context.instance
        before = await shell(sandbox, "cat /proc/self/mountinfo")
        for target in ("/tmp/link", "/tmp/link/apt", "/tmp/root", "/tmp/root/etc", "/proc/1/cwd"):
            with pytest.raises(PolicyDeniedError, match="symbolic link"):
                await instance.bind([Bind(str(tmp_path), target)], sandbox._context.session.ping)
        assert await shell(sandbox, "cat /proc/self/mountinfo") == before
        await instance.bind([Bind(str(tmp_path), "/tmp/real")], sandbox._context.session.ping)
        assert await shell(sandbox, "cat /proc/self/mountinfo") != before


async def test_no_directory_is_made_outside_of_the_sandbox_s_root(
    spec: SandboxSpec, tmp_path: Path
) -> None:
    """Not in what the host has mounted there, however it is written; a source that is gone is
    named."""
    shared = tmp_path / "shared"
    shared.mkdir()
    mount = {"source": str(shared), "destination": "/data", "read_only": False}
    async with ringfence.open(spec, mounts=[mount]) as sandbox:
        instance: Any = sandbox._context.instance
        ping = sandbox._context.session.ping
        before = await shell(sandbox, "cat /proc/self/mountinfo")
        for target in ("/data/x", "/data/x/y", "/opt/../data/x", "/tmp/x", "/proc/x"):
            with pytest.raises(InvalidSpecError, match="cannot be made"):
                await instance.bind([Bind(str(tmp_path), target)], ping)
        with pytest.raises(InvalidSpecError, match="a file where a directory"):
            await instance.bind([Bind(str(tmp_path), "/etc/passwd")], ping)
        with pytest.raises(NotFoundError, match="gone"):
            await instance.bind([Bind(str(tmp_path / "gone"), "/opt")], ping)
        assert await shell(sandbox, "cat /proc/self/mountinfo") == before
        assert [*shared.iterdir()] == []


async def test_a_process_that_is_not_the_sandbox_s_is_not_entered(spec: SandboxSpec) -> None:
    """Its pid is taken hold of first; the guest that answers then was its own all the time."""

    async def silent() -> None:
        raise SandboxLostError("the guest does not answer")

    async with ringfence.open(spec) as sandbox:
        instance: Any = sandbox._context.instance
        with pytest.raises(SandboxLostError, match="not answer"):
            await instance.bind([Bind("/", "/opt")], silent)
        assert " /opt " not in await shell(sandbox, "cat /proc/self/mountinfo")


async def test_an_error_deletes_the_member_and_leaves_nothing(
    spec: SandboxSpec, repository: Path, state_directory: Path, tmp_path: Path
) -> None:
    """Of what opening with it would raise, too; the next caller gets another member."""
    (tmp_path / "file").write_text("x")
    wrong: list[tuple[type[Exception], Any]] = [
        (NotFoundError, tmp_path / "missing"),
        (InvalidSpecError, tmp_path / "file"),
        (PolicyDeniedError, "/"),
        (NotFoundError, Repository(path=str(repository), ref="no-such-ref")),
    ]
    async with ringfence.pool(spec, size=1) as pool:
        for kind, repo in wrong:
            await pool.fill()
            (member,) = pool._stock.ready
            with pytest.raises(kind):
                async with pool.acquire(repository=repo):
                    pytest.fail("acquired")
            assert await member.state() is State.EXITED
            told = [event.name for event in member.history]
            assert told == ["Created", "RepositoryRefused", "Deleted"]
            assert member.id not in [one.record.id for one in Ledger.default().live()]
            with pytest.raises(kind):
                async with ringfence.open(spec, repository=repo):
                    pytest.fail("opened")
        with pytest.raises(InvalidSpecError, match="cannot be made"):
            async with pool.acquire(
                repository=Repository(path=str(repository), mount_point="/tmp/code")
            ):
                pytest.fail("acquired")
        assert pool.statistics.in_use == 0
        async with pool.acquire(repository=repository) as sandbox:
            assert sandbox.id != member.id
            assert (await sandbox.exec(["true"])).ok
    assert left_in(state_directory) == []
    assert Ledger.default().live() == []


async def test_the_ceiling_holds_for_it(
    process: SandboxSpec, repository: Path, state_directory: Path
) -> None:
    ceiling = Ceiling(repository_modes=("ro",))
    async with ringfence.pool(process, size=1, ceiling=ceiling) as pool:
        with pytest.raises(PolicyDeniedError, match=r"repository\.mode"):
            async with pool.acquire(repository=repository):
                pytest.fail("acquired")
        async with pool.acquire(repository={"path": str(repository), "mode": "ro"}) as sandbox:
            assert await shell(sandbox, "cat README.md") == "A project.\n"


async def test_a_full_disk_is_said_and_leaves_nothing(
    process: SandboxSpec,
    repository: Path,
    state_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ringfence.pool(process, size=1) as pool:
        await pool.fill()
        small = state_directory / "workspaces"
        small.mkdir(exist_ok=True)
        mounts.mount("tmpfs", "tmpfs", small, "size=64k,nr_inodes=12")
        try:
            with pytest.raises(ResourceExhaustedError):
                async with pool.acquire(repository=repository):
                    pytest.fail("acquired")
            assert [*small.glob("[0-9a-f]*")] == []
        finally:
            mounts.unmount(small)
    assert left_in(state_directory) == []
    assert Ledger.default().live() == []


async def test_where_no_thread_can_be_started_that_is_said_and_nothing_is_left(
    process: SandboxSpec,
    repository: Path,
    state_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[ringfence.Event] = []
    bus = ringfence.EventBus()
    bus.subscribe(events.append)

    async def start(*args: Any, **kw: Any) -> None:
        raise RuntimeError("can't start new thread")

    async with ringfence.pool(process, size=1, events=bus) as pool:
        await pool.fill()
        monkeypatch.setattr(binds, "verify", start)
        with pytest.raises(ResourceExhaustedError, match="ulimit -u"):
            async with pool.acquire(repository=repository):
                pytest.fail("acquired")
    assert "RepositoryRefused" in [event.name for event in events]
    assert left_in(state_directory) == []
    assert Ledger.default().live() == []


async def test_cancelled_at_any_moment_nothing_is_left(
    spec: SandboxSpec, repository: Path, state_directory: Path
) -> None:
    """And no member that was touched is given out again."""
    touched: set[str] = set()
    async with ringfence.pool(spec, size=1) as pool:

        async def use() -> None:
            async with pool.acquire(repository=repository) as sandbox:
                assert sandbox.id not in touched
                await asyncio.sleep(1000)

        for step in range(12):
            await pool.fill()
            (member,) = pool._stock.ready
            task = asyncio.create_task(use())
            await asyncio.sleep(step * 0.004)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            if member not in pool._stock.ready:
                touched.add(member.id)
                assert await member.state() is State.EXITED
            assert left_in(state_directory) == []
        assert touched
    assert Ledger.default().live() == []


async def test_a_member_that_ends_while_files_are_prepared_is_on_record_until_they_are_gone(
    process: SandboxSpec,
    repository: Path,
    state_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a client that is killed then would leave them, mounted, where nobody looks."""
    async with ringfence.pool(process, size=1) as pool:
        await pool.fill()
        (member,) = pool._stock.ready
        life, prepare = member._context.life, binds.prepare

        async def late(*args: Any, **more: Any) -> binds.Prepared:
            ending = life.end("lifetime")
            made = await prepare(*args, **more)
            await asyncio.wait([ending], timeout=1.0)
            assert left_in(state_directory) != []
            assert Ledger.default().get(member.id).live
            return made

        monkeypatch.setattr(binds, "prepare", late)
        with pytest.raises(SandboxLostError, match="lifetime"):
            async with pool.acquire(repository=repository):
                pytest.fail("acquired")
        assert not Ledger.default().get(member.id).live
    assert left_in(state_directory) == []


async def test_in_a_member_that_has_ended_nothing_is_prepared(
    process: SandboxSpec,
    repository: Path,
    state_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody would remove it: what belonged to the member is removed already."""
    async with ringfence.pool(process, size=1) as pool:
        await pool.fill()
        (member,) = pool._stock.ready
        life = member._context.life
        note = life.note

        async def noted(*args: Any) -> None:
            await note(*args)
            await life.end("lifetime")

        monkeypatch.setattr(life, "note", noted)
        with pytest.raises(SandboxLostError, match="lifetime"):
            async with pool.acquire(repository=repository):
                pytest.fail("acquired")
    assert left_in(state_directory) == []


async def test_what_was_bound_is_what_was_checked(
    process: SandboxSpec, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not a directory that looks like it, time and all."""
    give(repository)  # to the pool's user, so that no owner is mapped
    twin = shutil.copytree(repository, tmp_path / "twin", symlinks=True)
    plain = late_binds.bind

    async def bind(pid: int, given: list[Bind], *rest: Any, **more: Any) -> None:
        assert given[0].source == str(repository)
        await plain(pid, [replace(given[0], source=str(twin)), *given[1:]], *rest, **more)

    monkeypatch.setattr(late_binds, "bind", bind)
    async with ringfence.pool(process, size=1) as pool:
        with pytest.raises(PolicyDeniedError, match="something else was mounted"):
            async with pool.acquire(repository=Repository(path=str(repository), mode="ro")):
                pytest.fail("acquired")


def test_a_client_that_was_killed_leaves_no_mount_and_no_file(
    spec: SandboxSpec, repository: Path, state_directory: Path
) -> None:
    """The guard finds the workspace in the record, though the member was made without one."""
    asked = json.dumps(spec.model_dump(mode="json", exclude_defaults=True))
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, asked, str(repository)], stdout=subprocess.PIPE
    )
    try:
        assert client.stdout is not None
        name = client.stdout.readline().decode().strip()
        assert left_in(state_directory) != []
    finally:
        client.kill()
        client.communicate()
    assert wait_for(lambda: left_in(state_directory) == []), left_in(state_directory)
    assert wait_for(lambda: Ledger.default().live() == [])
    assert Ledger.default().get(name).reason


def test_clients_killed_while_they_acquire_leave_nothing(
    spec: SandboxSpec, repository: Path, state_directory: Path
) -> None:
    """At any moment: before the record has the workspace, while it is made, while it is mounted."""
    asked = json.dumps(spec.model_dump(mode="json", exclude_defaults=True))
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", OFTEN, asked, str(repository)], stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    try:
        for client in clients:
            assert client.stdout is not None
            assert client.stdout.readline() == b"begin\n"
        for client in clients:
            time.sleep(random.random() * 0.3)
            client.send_signal(signal.SIGKILL)
    finally:
        for client in clients:
            client.kill()
            client.communicate()
    assert Ledger.default().all() != []
    assert wait_for(lambda: left_in(state_directory) == []), left_in(state_directory)
    assert wait_for(lambda: Ledger.default().live() == [])


async def test_a_clone_is_bound_as_a_directory_is(
    process: SandboxSpec, repository: Path, state_directory: Path
) -> None:
    async with (
        ringfence.pool(process, size=1) as pool,
        pool.acquire(repository=f"file://{repository}") as sandbox,
    ):
        assert await shell(sandbox, "git log --format=%s && cat README.md") == (
            "first\nA project.\n"
        )
    assert git(repository, "log", "--format=%s").strip() == "first"
    assert left_in(state_directory) == []


async def test_the_login_in_its_url_is_in_no_entry_of_the_audit_log(
    process: SandboxSpec, served: str, tmp_path: Path
) -> None:
    """Not even as a command's argument, as where the sandbox was opened with it."""
    url, log = served.replace("://", "://me:hunter2@"), tmp_path / "log"
    async with (
        ringfence.pool(process, size=1, audit=log) as pool,
        pool.acquire(repository=url) as sandbox,
    ):
        await sandbox.exec(["echo", url])
    assert served.replace("://", "://[redacted]@") in log.read_text()
    assert "hunter2" not in log.read_text()


async def test_the_files_are_the_pool_s_user_s(
    spec: SandboxSpec, repository: Path, state_directory: Path
) -> None:
    """Whoever owns the original, and whether the user is named or numbered."""
    subprocess.run(["chown", "-R", "4321:4321", str(repository)], check=True)  # noqa: ASYNC221
    for user in ("user", "1234"):
        other = spec.model_copy(update={"user": user})
        async with (
            ringfence.pool(other, size=1) as pool,
            pool.acquire(repository=repository) as sandbox,
        ):
            await shell(sandbox, "echo more >> README.md; touch new; rm run.sh")
            assert len(await sandbox.workspace.changes()) == 3


def test_the_blocking_pool_takes_one_too(
    process: SandboxSpec, repository: Path, state_directory: Path
) -> None:
    with (
        ringfence.sync.pool(process, size=1) as pool,
        pool.acquire(repository=str(repository)) as sandbox,
    ):
        sandbox.exec(["touch", "new"]).check()
        assert b"new" in sandbox.workspace.patch()


@pytest.mark.gvisor
async def test_gvisor_takes_none(repository: Path, state_directory: Path) -> None:
    require_root()
    require_gvisor()
    spec = SandboxSpec.parse({"image": DEBIAN, "security": {"runtime": "runsc"}})
    async with ringfence.pool(spec, size=1) as pool:
        with pytest.raises(UnsupportedError, match="into the pool's spec"):
            async with pool.acquire(repository=repository):
                pytest.fail("acquired")
