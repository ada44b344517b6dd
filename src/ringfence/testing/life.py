"""Checks of a sandbox's life, from opening to its end."""

import asyncio
import pickle
import re
import time
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import Limits, Reason, State
from ringfence.backends.base import Features
from ringfence.errors import SandboxError
from ringfence.ledger import Ledger
from ringfence.testing.base import Checks, Open, running, until

_WHERE = ("backend", "endpoint", "ceiling", "ledger", "events")


class LifeChecks(Checks):
    """Opening, ending, clocks, detaching, what is told of it."""

    async def test_info_says_what_it_is(self, sandbox: ringfence.Sandbox) -> None:
        """Id, backend, state, transport and times are known."""
        info = sandbox.info
        assert re.fullmatch(r"[a-z0-9-]{1,40}", info.id)
        assert info.state is State.RUNNING
        assert info.backend == sandbox.spec.backend != "auto"
        assert info.transport
        assert abs(info.created - time.time()) < 3600
        assert await sandbox.state() is State.RUNNING
        assert info.to_dict()["state"] == "running"

    async def test_labels_are_kept(self, fresh: Open) -> None:
        """What was given at opening is in the info."""
        async with fresh(labels={"task": "42", "team/x.y": "z"}) as sandbox:
            assert sandbox.info.labels == {"task": "42", "team/x.y": "z"}

    async def test_leaving_the_block_deletes(self, fresh: Open) -> None:
        """Afterwards it has exited and everything is StateError."""
        async with fresh() as sandbox:
            assert (await sandbox.exec(["true"])).ok
        assert await sandbox.state() is State.EXITED
        assert (sandbox.info.state, sandbox.info.reason) == (State.EXITED, "deleted")
        for operation in (
            sandbox.exec(["true"]),
            sandbox.files.read("/etc/passwd"),
            sandbox.processes(),
            sandbox.chdir("/tmp"),
            sandbox.extend(60),
        ):
            with pytest.raises(ringfence.StateError):
                await operation
        assert not (await sandbox.health()).ok

    async def test_an_error_in_the_block_deletes(self, fresh: Open) -> None:
        """The error goes on, and the sandbox is gone."""
        with pytest.raises(LookupError):
            async with fresh() as sandbox:
                raise LookupError
        assert await sandbox.state() is State.EXITED

    async def test_delete_is_idempotent_and_reports(self, fresh: Open) -> None:
        """It ends what runs, says how many, and can be repeated."""
        sandbox = await fresh()
        await sandbox.spawn(["sleep", "300"])
        report = await sandbox.delete(grace=1)
        assert (report.id, report.reason, report.terminated) == (sandbox.id, "deleted", 1)
        assert report.error is None
        assert await sandbox.delete() == report
        assert await sandbox.state() is State.EXITED

    async def test_delete_is_not_interrupted(self, fresh: Open) -> None:
        """A cancelled delete is carried to its end before the cancellation is raised."""
        sandbox = await fresh()
        task = asyncio.create_task(sandbox.delete())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await sandbox.state() is State.EXITED

    async def test_a_command_sees_its_sandbox_go(self, fresh: Open) -> None:
        """A command under way when the sandbox is deleted does not hang: its result says so."""
        sandbox = await fresh()
        command = asyncio.create_task(sandbox.exec(["sleep", "300"]))
        await until(lambda: _runs(sandbox))
        await sandbox.delete(grace=0)
        result = await asyncio.wait_for(command, 20)
        assert result.reason in (Reason.SANDBOX_LOST, Reason.KILLED)

    async def test_a_lifetime_ends_it(self, fresh: Open) -> None:
        """After its lifetime it is gone by itself, and what is asked of it is SandboxLostError."""
        async with fresh(lifetime=4) as sandbox:
            assert sandbox.info.ends is not None

            async def gone() -> bool:
                return sandbox.info.state is State.EXITED

            await until(gone)
            assert sandbox.info.reason == "lifetime"
            with pytest.raises(ringfence.SandboxLostError, match="lifetime"):
                await sandbox.exec(["true"])

    async def test_a_lifetime_can_be_extended(self, fresh: Open) -> None:
        """extend sets the end anew, from now on."""
        async with fresh(lifetime=60) as sandbox:
            ends = await sandbox.extend("2h")
            assert 7100 < ends - time.time() < 7300
            assert sandbox.info.ends == ends
            with pytest.raises(ringfence.InvalidSpecError):
                await sandbox.extend(0)

    async def test_idleness_ends_it(self, fresh: Open) -> None:
        """Without a command or file operation for idle_timeout it is deleted."""
        async with fresh(idle_timeout=0.3) as sandbox:
            assert (await sandbox.exec(["sleep", "0.6"])).ok

            async def gone() -> bool:
                return sandbox.info.state is State.EXITED

            await until(gone)
            assert sandbox.info.reason == "idle_timeout"

    async def test_a_detached_sandbox_goes_on(self, fresh: Open, features: Features) -> None:
        """Its block only detaches; by its id it is found again, with its held commands."""
        if not features.detached:
            with pytest.raises(ringfence.UnsupportedError):
                await fresh(detached=True, lifetime=60)
            return
        async with fresh(detached=True, lifetime=60) as first:
            await first.files.write("/tmp/kept", b"kept")
            async with first.spawn(["cat"], hold=True) as process:
                await process.write(b"line\n")
                assert await process.stdout.readline() == b"line\n"
        with pytest.raises(ringfence.StateError):
            await first.exec(["true"])
        second = await _reopened(fresh, first.id)
        try:
            assert second.id == first.id
            assert await second.files.read("/tmp/kept") == b"kept"
            again = await second.attach(process.id)
            assert await again.stdout.readline() == b"line\n"
        finally:
            await second.delete()
        with pytest.raises(ringfence.SandboxError):
            await _reopened(fresh, first.id)

    async def test_a_second_client_does_not_disturb_the_first(
        self, fresh: Open, features: Features
    ) -> None:
        """One session at a time: another client waits, or is told so, and nothing is taken away."""
        if not features.detached:
            return
        async with fresh(detached=True, lifetime=120) as first:

            async def intrude() -> bytes:
                async with await _reopened(fresh, first.id) as second:
                    return (await second.exec(["echo", "second"])).stdout

            intruding = asyncio.create_task(intrude())
            result = await first.exec(shell="sleep 1; echo kept")
            assert (result.reason, result.stdout) == (Reason.EXITED, b"kept\n")
            assert (await first.exec(["true"])).ok
        [outcome] = await asyncio.gather(intruding, return_exceptions=True)
        assert outcome == b"second\n" or isinstance(outcome, ringfence.DeadlineExceededError)
        await (await _reopened(fresh, first.id)).delete()

    async def test_an_attached_sandbox_has_one_holder(
        self, fresh: Open, spec_kwargs: dict[str, Any]
    ) -> None:
        """Opening it by its id is StateError; an unknown id is NotFoundError."""
        async with fresh() as sandbox:
            with pytest.raises(ringfence.StateError):
                await _reopened(fresh, sandbox.id)
            with pytest.raises(ringfence.StateError):
                await sandbox.detach()
        with pytest.raises(ringfence.NotFoundError):
            await _reopened(fresh, "no-such-id")

    async def test_pausing(self, fresh: Open, features: Features) -> None:
        """A paused sandbox refuses commands and goes on when resumed; else UnsupportedError."""
        async with fresh() as sandbox:
            if not features.pause:
                with pytest.raises(ringfence.UnsupportedError):
                    await sandbox.pause()
                return
            await sandbox.pause()
            assert await sandbox.state() is State.PAUSED
            with pytest.raises(ringfence.StateError):
                await sandbox.exec(["true"])
            assert not (await sandbox.health()).ok
            await sandbox.resume()
            assert (await sandbox.exec(["true"])).ok
            with pytest.raises(ringfence.StateError):
                await sandbox.resume()

    async def test_a_paused_sandbox_can_be_deleted(self, fresh: Open, features: Features) -> None:
        """It need not be resumed before."""
        async with fresh() as sandbox:
            if not features.pause:
                with pytest.raises(ringfence.StateError):
                    await sandbox.resume()
                return
            await sandbox.pause()
        assert await sandbox.state() is State.EXITED

    async def test_what_cannot_be_limited_is_refused(self, fresh: Open, features: Features) -> None:
        """A limit that the backend cannot hold is UnsupportedError before anything starts."""
        wanted = {"memory": 2**28, "cpus": 1.0, "pids": 64, "disk": 2**24}
        for name, value in wanted.items():
            if name in features.limits:
                continue
            with pytest.raises(ringfence.UnsupportedError, match=name):
                await fresh(limits={name: value})

    async def test_processor_time_is_limited(self, fresh: Open, features: Features) -> None:
        """A sandbox that used up its limits.cpu_time ends, and its command says why; where usage
        is not measured, UnsupportedError."""
        if not features.usage:
            with pytest.raises(ringfence.UnsupportedError, match="cpu_time"):
                await fresh(limits={"cpu_time": 1})
            return
        async with fresh(limits={"cpu_time": 0.5}) as sandbox:
            result = await sandbox.exec(shell="while :; do :; done", timeout=60)
            assert result.reason is Reason.CPU_TIME

            async def gone() -> bool:
                return sandbox.info.state is State.EXITED

            await until(gone)
            assert sandbox.info.reason == "cpu_time"
            assert "LimitHit" in [event.name for event in sandbox.history]
            with pytest.raises(ringfence.SandboxLostError, match="cpu_time"):
                await sandbox.exec(["true"])

    async def test_processor_time_is_limited_while_nobody_is_there(
        self, fresh: Open, sandbox: ringfence.Sandbox, features: Features
    ) -> None:
        """The guest of a detached sandbox ends its commands, and whoever comes later is told why;
        where the guest cannot see what is used, UnsupportedError."""
        opening = fresh(limits={"cpu_time": 0.5}, detached=True, lifetime=120)
        if not _guest_sees_what_is_used(sandbox, features):
            with pytest.raises(ringfence.UnsupportedError, match="cpu_time"):
                await opening
            return
        book = opening.where.ledger
        async with opening as first:
            await first.spawn(["/bin/sh", "-c", "while :; do :; done"], hold=True)

        async def stands() -> bool:
            before = await _used(first.id, book) or 0.0
            await asyncio.sleep(0.3)
            return before >= 0.5 and (await _used(first.id, book) or 0.0) - before < 0.05

        await until(stands)
        [listed] = [
            one
            for one in await ringfence.list_sandboxes(ended=True, ledger=book)
            if one.id == first.id
        ]
        assert (listed.state, listed.reason) == (State.EXITED, "cpu_time")
        for _ in range(2):
            with pytest.raises(ringfence.NotFoundError, match="cpu_time"):
                await _reopened(fresh, first.id)

    async def test_processor_time_is_limited_for_who_comes_again(
        self, fresh: Open, sandbox: ringfence.Sandbox, features: Features
    ) -> None:
        """A command of a later session ends for it as one of the first would."""
        if not _guest_sees_what_is_used(sandbox, features):
            return
        async with fresh(limits={"cpu_time": 0.5}, detached=True, lifetime=120) as first:
            pass
        async with await _reopened(fresh, first.id) as second:
            result = await second.exec(shell="while :; do :; done", timeout=60)
            assert result.reason is Reason.CPU_TIME

            async def gone() -> bool:
                return second.info.state is State.EXITED

            await until(gone)
            assert second.info.reason == "cpu_time"
        with pytest.raises(ringfence.NotFoundError, match="cpu_time"):
            await _reopened(fresh, first.id)

    async def test_everything_unsupported_is_named_at_once(
        self, fresh: Open, features: Features
    ) -> None:
        """One error lists all that is lacking."""
        with pytest.raises(ringfence.UnsupportedError) as caught:
            await fresh(
                security={"runtime": "no-such-runtime"},
                limits={} if "disk" in features.limits else {"disk": 2**24},
            )
        fields = caught.value.context["fields"]
        assert "security.runtime" in fields
        assert ("limits.disk" in fields) == ("disk" not in features.limits)

    async def test_mounts_appear_read_only(
        self, fresh: Open, features: Features, tmp_path: Path
    ) -> None:
        """A mounted directory is seen and cannot be written; without mounts, UnsupportedError."""
        source = tmp_path / "mounted"
        source.mkdir()
        (source / "file").write_text("from the host")
        for path in (source, *source.parents[:2]):
            path.chmod(0o755)
        mounts = [ringfence.Mount(source=str(source), destination="/mounted")]
        if not features.mounts:
            with pytest.raises(ringfence.UnsupportedError, match="mounts"):
                await fresh(mounts=mounts)
            return
        async with fresh(mounts=mounts) as sandbox:
            assert await sandbox.files.read("/mounted/file") == b"from the host"
            with pytest.raises(ringfence.PathDeniedError):
                await sandbox.files.write("/mounted/new", b"x")
        assert [path.name for path in source.iterdir()] == ["file"]

    async def test_a_repository_is_worked_on_as_a_copy(
        self, fresh: Open, features: Features, tmp_path: Path
    ) -> None:
        """Changes are in the patch and not in the original; without mounts, UnsupportedError."""
        repository = tmp_path / "repository"
        repository.mkdir()
        (repository / "file").write_text("before\n")
        for path in (repository, *repository.parents[:2]):
            path.chmod(0o755)
        if not features.mounts:
            with pytest.raises(ringfence.UnsupportedError, match="repository"):
                await fresh(repository=repository)
            return
        async with fresh(repository=repository) as sandbox:
            assert sandbox.cwd == "/workspace"
            line = "cat file && echo after >> file && echo new > other"
            result = await sandbox.exec(shell=line)
            assert (result.stdout, result.stderr) == (b"before\n", b"")
            assert sandbox.workspace is not None
            patch = await sandbox.workspace.patch()
        assert b"+after" in patch
        assert b"+++ b/other" in patch
        assert [path.name for path in repository.iterdir()] == ["file"]
        assert (repository / "file").read_text() == "before\n"

    async def test_a_fork_starts_from_the_present_state(
        self, fresh: Open, features: Features, tmp_path: Path
    ) -> None:
        """It is like its parent, on a workspace of its own."""
        if not features.mounts:
            pytest.skip("nothing can be bound: no workspace")
        repository = tmp_path / "repository"
        repository.mkdir()
        (repository / "file").write_text("before\n")
        for path in (repository, *repository.parents[:2]):
            path.chmod(0o755)
        async with fresh(repository=repository) as sandbox:
            await sandbox.exec(shell="echo parent >> file")
            for fork in await sandbox.fork(2):
                async with fork:
                    result = await fork.exec(shell="cat file && echo mine >> file")
                    assert result.stdout == b"before\nparent\n"
                    asked = {"memory", "cpus", "pids", "user"}
                    told = [one.receipt.controls for one in (sandbox, fork)]
                    assert len({str([c for c in row if c.name in asked]) for row in told}) == 1

    async def test_sandboxes_do_not_see_each_other(self, fresh: Open) -> None:
        """A file of one is not in another, and deleting one leaves the other."""
        async with fresh() as one:
            async with fresh() as two:
                await one.files.write("/tmp/mine", b"x")
                assert not await two.files.exists("/tmp/mine")
                assert one.id != two.id
            assert (await one.exec(["cat", "/tmp/mine"])).stdout == b"x"

    async def test_opening_can_be_cancelled_anywhere(self, fresh: Open) -> None:
        """Cancelled after a while, wherever it is then, it raises only the cancellation."""
        begin = time.monotonic()
        async with fresh():
            whole = time.monotonic() - begin
        for part in (0.0, 0.2, 0.5, 0.8):
            task = asyncio.create_task(_held(fresh))
            await asyncio.sleep(whole * part)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def test_health(self, sandbox: ringfence.Sandbox) -> None:
        """It answers, and says how fast."""
        health = await sandbox.health()
        assert health.ok
        assert health.latency is not None
        assert 0 < health.latency < 30

    async def test_usage(self, sandbox: ringfence.Sandbox, features: Features) -> None:
        """Memory and processor time are told; without measuring, UnsupportedError."""
        if not features.usage:
            with pytest.raises(ringfence.UnsupportedError):
                await sandbox.usage()
            return
        usage = await sandbox.usage()
        assert usage.memory is None or usage.memory > 0
        assert usage.cpu_seconds is not None
        assert usage.cpu_seconds >= 0
        async for sample in sandbox.stats(0.01):
            assert sample.cpu_seconds is not None
            break

    async def test_limits_can_be_changed(self, fresh: Open, features: Features) -> None:
        """What the session holds can always be changed; what the backend cannot, is refused."""
        async with fresh() as sandbox:
            limits = await sandbox.update(Limits(timeout=0.2))
            assert limits.timeout == 0.2
            assert (await sandbox.exec(["sleep", "300"])).reason is Reason.TIMEOUT
            assert (await sandbox.update({"timeout": "5m"})).timeout == 300
            if "disk" not in features.limits:
                with pytest.raises(ringfence.UnsupportedError, match="disk"):
                    await sandbox.update(Limits(disk=2**24))

    async def test_events_tell_its_life(self, fresh: Open) -> None:
        """Created, the command's start and end with its code, and Deleted, in this order."""
        async with fresh() as sandbox:
            stream = sandbox.events()
            await sandbox.exec(["sh", "-c", "exit 4"])
        names = [event.name for event in sandbox.history]
        assert names[0] == "Created"
        assert names[-1] == "Deleted"
        assert [n for n in names if n.startswith("Exec")] == ["ExecStarted", "ExecEnded"]
        (ended,) = [event for event in sandbox.history if event.name == "ExecEnded"]
        assert ended.to_dict()["exit_code"] == 4
        told = [event.name async for event in stream]
        assert (told[0], told[-1]) == ("ExecStarted", "Deleted")

    async def test_a_limit_that_was_hit_is_an_event(self, sandbox: ringfence.Sandbox) -> None:
        """A timeout is told as LimitHit."""
        await sandbox.exec(["sleep", "300"], timeout=0.1)
        assert sandbox.history[-1].to_dict()["limit"] == "timeout"

    async def test_the_receipt_has_no_gaps(
        self, sandbox: ringfence.Sandbox, features: Features
    ) -> None:
        """What is enforced was read back before the first command; gaps were allowed by name."""
        assert bool(sandbox.receipt.controls) == features.receipt
        allowed = sandbox.spec.security.allow_degraded
        assert [gap.name for gap in sandbox.receipt.gaps if gap.name not in allowed] == []

    async def test_run_does_it_all(self, spec_kwargs: dict[str, Any]) -> None:
        """One call gives the result, the events and the receipt, and leaves nothing."""
        run = await ringfence.run(["sh", "-c", "echo x; exit 2"], **spec_kwargs)
        assert (run.result.stdout, run.result.exit_code) == (b"x\n", 2)
        assert run.events[0].name == "Created"

    async def test_wrong_specs_are_refused_before_anything(self, fresh: Open) -> None:
        """Every wrong field is named at once, with nothing started."""
        with pytest.raises(ringfence.InvalidSpecError) as caught:
            await fresh(env={"A-B": "x"}, lifetime=-1, cwd="relative", labels={"": "x"})
        assert {"env", "lifetime", "cwd", "labels"} <= set(caught.value.context["fields"])
        with pytest.raises(ringfence.InvalidSpecError):
            await fresh(detached=True)

    async def test_errors_are_whole_after_pickling(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """Class, message, operation, sandbox and path survive pickle and JSON."""
        with pytest.raises(ringfence.PathNotFoundError) as caught:
            await sandbox.files.read(f"{place}/missing")
        error = caught.value
        for copy in (pickle.loads(pickle.dumps(error)), SandboxError.from_dict(error.to_dict())):
            assert type(copy) is ringfence.PathNotFoundError
            assert (copy.op, copy.sandbox_id) == ("files.read", sandbox.id)
            assert copy.path == f"{place}/missing"
            assert str(copy) == str(error)

    async def test_a_pool_hands_each_out_once(self, spec_kwargs: dict[str, Any]) -> None:
        """Members are warm, healthy, distinct and gone afterwards."""
        kwargs = dict(spec_kwargs)
        where = {name: kwargs.pop(name) for name in _WHERE if name in kwargs}
        spec = ringfence.SandboxSpec.parse(kwargs)
        async with ringfence.pool(spec, size=1, **where) as pool:
            await pool.fill()
            async with pool.acquire() as first:
                assert (await first.exec(["true"])).ok
            async with pool.acquire() as second:
                assert (await second.exec(["true"])).ok
            assert first.id != second.id
            assert await first.state() is State.EXITED
            assert pool.statistics.hits >= 1

    async def test_the_blocking_interface_does_the_same(
        self, spec_kwargs: dict[str, Any], tmp_path: Path
    ) -> None:
        """ringfence.sync runs commands and moves files on this backend."""

        def use() -> None:
            from ringfence import sync

            with sync.open(**spec_kwargs) as sandbox:
                assert sandbox.exec(["echo", "x"]).stdout == b"x\n"
                sandbox.files.write("/tmp/f", b"content")
                assert sandbox.files.read("/tmp/f") == b"content"
                with sandbox.spawn(["cat"]) as process:
                    process.write(b"line\n")
                    assert process.stdout.readline() == b"line\n"
                with pytest.raises(ringfence.PathNotFoundError):
                    sandbox.files.read("/tmp/missing")
            assert sandbox.info.state is State.EXITED

        await asyncio.to_thread(use)


async def _runs(sandbox: ringfence.Sandbox) -> bool:
    return await running(sandbox) > 0


async def _held(fresh: Open) -> None:
    async with fresh():
        await asyncio.sleep(3600)


def _guest_sees_what_is_used(sandbox: ringfence.Sandbox, features: Features) -> bool:
    return features.detached and features.cpu_counter and sandbox.info.transport == "socket"


async def _used(sandbox_id: str, ledger: Ledger | None) -> float | None:
    async for _, usage in ringfence.usages([sandbox_id], ledger=ledger):
        return usage.cpu_seconds
    return None


async def _reopened(fresh: Open, sandbox_id: str) -> ringfence.Sandbox:
    opening = fresh()
    where = opening.where
    return await ringfence.open(
        id=sandbox_id, backend=where.backend, endpoint=where.endpoint, ledger=where.ledger
    )
