"""Checks of a sandbox's life, from opening to its end."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import Reason, State
from ringfence.backends.base import Features
from ringfence.testing.base import Open, pool_of, reopened, some_run, until
from ringfence.testing.holding import HoldingChecks
from ringfence.testing.limiting import LimitChecks
from ringfence.testing.telling import TellingChecks


class LifeChecks(TellingChecks, LimitChecks, HoldingChecks):
    """Opening, ending, clocks, detaching, pools; what it tells of itself, its limits, and what it
    holds."""

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
        await until(lambda: some_run(sandbox))
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
        second = await reopened(fresh, first.id)
        try:
            assert second.id == first.id
            assert await second.files.read("/tmp/kept") == b"kept"
            again = await second.attach(process.id)
            assert await again.stdout.readline() == b"line\n"
            result = await again.communicate("next\n")
            assert (result.exit_code, result.stdout_total) == (0, len("line\nnext\n"))
        finally:
            await second.delete()
        with pytest.raises(ringfence.SandboxError):
            await reopened(fresh, first.id)

    async def test_a_second_client_does_not_disturb_the_first(
        self, fresh: Open, features: Features
    ) -> None:
        """One session at a time: another client waits, or is told so, and nothing is taken away."""
        if not features.detached:
            return
        async with fresh(detached=True, lifetime=120) as first:

            async def intrude() -> bytes:
                async with await reopened(fresh, first.id) as second:
                    return (await second.exec(["echo", "second"])).stdout

            intruding = asyncio.create_task(intrude())
            result = await first.exec(shell="sleep 1; echo kept")
            assert (result.reason, result.stdout) == (Reason.EXITED, b"kept\n")
            assert (await first.exec(["true"])).ok
        [outcome] = await asyncio.gather(intruding, return_exceptions=True)
        assert outcome == b"second\n" or isinstance(outcome, ringfence.DeadlineExceededError)
        await (await reopened(fresh, first.id)).delete()

    async def test_an_attached_sandbox_has_one_holder(
        self, fresh: Open, spec_kwargs: dict[str, Any]
    ) -> None:
        """Opening it by its id is StateError; an unknown id is NotFoundError."""
        async with fresh() as sandbox:
            with pytest.raises(ringfence.StateError):
                await reopened(fresh, sandbox.id)
            with pytest.raises(ringfence.StateError):
                await sandbox.detach()
        with pytest.raises(ringfence.NotFoundError):
            await reopened(fresh, "no-such-id")

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

    async def test_a_pool_hands_each_out_once(self, spec_kwargs: dict[str, Any]) -> None:
        """Members are warm, healthy, distinct and gone afterwards."""
        async with pool_of(spec_kwargs, size=1) as pool:
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


async def _held(fresh: Open) -> None:
    async with fresh():
        await asyncio.sleep(3600)
