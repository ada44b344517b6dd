"""Checks of limits, and of what cannot be limited."""

import asyncio
from typing import Any

import pytest

import ringfence
from ringfence import Limits, Reason, State
from ringfence.backends.base import Features
from ringfence.events import LimitHit
from ringfence.ledger import Ledger
from ringfence.testing.base import Checks, Open, reopened, undegraded, until


class LimitChecks(Checks):
    """Processor time, limits that change, and the refusal of what a backend cannot hold."""

    async def test_what_cannot_be_limited_is_refused(
        self, fresh: Open, features: Features, spec_kwargs: dict[str, Any]
    ) -> None:
        """A limit that the backend cannot hold is UnsupportedError before anything starts."""
        security = undegraded(spec_kwargs)
        wanted = {"memory": 2**28, "cpus": 1.0, "pids": 64, "disk": 2**24}
        for name, value in wanted.items():
            if name in features.limits:
                continue
            with pytest.raises(ringfence.UnsupportedError, match=name):
                await fresh(limits={name: value}, security=security)

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
            before = await _used(first.id, book)
            await asyncio.sleep(0.3)
            after = await _used(first.id, book)
            if before is None or after is None:  # a guard may have removed it meanwhile
                return (await _listed(first.id, book)).state is State.EXITED
            return before >= 0.5 and after - before < 0.05

        await until(stands)
        listed = await _listed(first.id, book)
        assert (listed.state, listed.reason) == (State.EXITED, "cpu_time"), listed
        for _ in range(2):
            with pytest.raises(ringfence.NotFoundError, match="cpu_time"):
                await reopened(fresh, first.id)

    async def test_processor_time_is_limited_for_who_comes_again(
        self, fresh: Open, sandbox: ringfence.Sandbox, features: Features
    ) -> None:
        """A command of a later session ends for it as one of the first would."""
        if not _guest_sees_what_is_used(sandbox, features):
            return
        async with fresh(limits={"cpu_time": 0.5}, detached=True, lifetime=120) as first:
            pass
        async with await reopened(fresh, first.id) as second:
            result = await second.exec(shell="while :; do :; done", timeout=60)
            assert result.reason is Reason.CPU_TIME

            async def gone() -> bool:
                return second.info.state is State.EXITED

            await until(gone)
            assert second.info.reason == "cpu_time"
        with pytest.raises(ringfence.NotFoundError, match="cpu_time"):
            await reopened(fresh, first.id)

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

    async def test_a_full_tmpfs_is_an_event(self, fresh: Open, features: Features) -> None:
        """Of a command that failed and of a file operation, whichever met it; where a tmpfs has no
        size there is none to meet."""
        if "tmp" not in features.limits:
            return
        async with fresh(limits={"tmp": 2**20}) as sandbox:
            await sandbox.exec(shell="exit 1")
            assert _hits(sandbox) == []
            assert not (await sandbox.exec(shell="head -c 4000000 /dev/zero > /tmp/x")).ok
            with pytest.raises(ringfence.FileError):
                await sandbox.files.write("/tmp/y", bytes(2**18))
            assert _hits(sandbox) == ["tmp", "tmp"]
            await sandbox.exec(["rm", "/tmp/x"])
            await sandbox.exec(shell="exit 1")
            assert _hits(sandbox) == ["tmp", "tmp"]

    async def test_a_limit_that_was_hit_is_an_event(self, sandbox: ringfence.Sandbox) -> None:
        """A timeout is told as LimitHit."""
        await sandbox.exec(["sleep", "300"], timeout=0.1)
        assert sandbox.history[-1].to_dict()["limit"] == "timeout"


def _hits(sandbox: ringfence.Sandbox) -> list[str]:
    return [event.limit for event in sandbox.history if isinstance(event, LimitHit)]


def _guest_sees_what_is_used(sandbox: ringfence.Sandbox, features: Features) -> bool:
    return features.detached and features.cpu_counter and sandbox.info.transport == "socket"


async def _used(sandbox_id: str, ledger: Ledger | None) -> float | None:
    """Its processor time; None when it is gone or cannot be measured."""
    async for _, usage in ringfence.usages([sandbox_id], ledger=ledger):
        return usage.cpu_seconds
    return None


async def _listed(sandbox_id: str, ledger: Ledger | None) -> ringfence.SandboxInfo:
    listed = await ringfence.list_sandboxes(ended=True, ledger=ledger)
    return next(one for one in listed if one.id == sandbox_id)
