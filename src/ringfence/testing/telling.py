"""Checks of what a sandbox tells of itself."""

import pickle
import re
import time

import pytest

import ringfence
from ringfence import State
from ringfence.backends.base import Features
from ringfence.errors import SandboxError
from ringfence.testing.base import Checks, Open


class TellingChecks(Checks):
    """Its info, labels, health, usage, events, receipt and errors."""

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

    async def test_the_receipt_has_no_gaps(
        self, sandbox: ringfence.Sandbox, features: Features
    ) -> None:
        """What is enforced was read back before the first command; gaps were allowed by name."""
        assert bool(sandbox.receipt.controls) == features.receipt
        allowed = sandbox.spec.security.allow_degraded
        assert [gap.name for gap in sandbox.receipt.gaps if gap.name not in allowed] == []

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
