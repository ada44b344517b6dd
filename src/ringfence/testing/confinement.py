"""Checks of what holds a command in: identity, privileges, devices, network, memory."""

from collections.abc import Mapping
from typing import Any

import pytest

import ringfence
from ringfence import Reason
from ringfence.backends.base import Features
from ringfence.testing.base import Checks, Open, undegraded

_GUESTS = 1 << 5 | 1 << 6 | 1 << 7
"""KILL, SETGID and SETUID."""


class ConfinementChecks(Checks):
    """What a command finds around it."""

    async def test_commands_have_no_privileges(self, sandbox: ringfence.Sandbox) -> None:
        """No capability, none that can be gained, and a bound of the guest's own three at most."""
        status = await _status(sandbox)
        for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            if name in status:
                assert int(status[name], 16) == 0, name
        assert int(status.get("CapBnd", "0"), 16) & ~_GUESTS == 0
        assert status.get("NoNewPrivs", "1") == "1"

    async def test_there_is_only_a_loopback(self, sandbox: ringfence.Sandbox) -> None:
        """With network none no other interface exists."""
        text = (await sandbox.exec(["cat", "/proc/net/dev"])).stdout.decode()
        names = [line.split(":")[0].strip() for line in text.splitlines() if ":" in line]
        assert set(names) <= {"lo"}

    async def test_the_root_cannot_be_written(self, sandbox: ringfence.Sandbox) -> None:
        """Not by a command either."""
        for path in ("/x", "/etc/x", "/usr/x"):
            assert not (await sandbox.exec(["touch", path])).ok

    async def test_few_processes_are_seen(self, sandbox: ringfence.Sandbox) -> None:
        """A command does not see the host's processes."""
        listing = await sandbox.files.list("/proc")
        assert sum(name.isdigit() for name in listing.names) < 20

    async def test_escapees_do_not_outlive_a_timeout(self, sandbox: ringfence.Sandbox) -> None:
        """A child in a session of its own is gone when the timeout is reported."""
        line = "setsid sleep 1234 & sleep 1235"
        result = await sandbox.exec(shell=line, timeout=0.5, grace=0.0)
        assert result.reason is Reason.TIMEOUT
        left = await sandbox.exec(
            shell="grep -l 'sleep.123[4]' /proc/[0-9]*/cmdline 2>/dev/null | wc -l"
        )
        assert int(left.stdout) == 0

    async def test_memory_is_limited(
        self, fresh: Open, features: Features, spec_kwargs: dict[str, Any]
    ) -> None:
        """A command that takes more is OOM_KILLED; without the limit, UnsupportedError."""
        limits = {"memory": 64 * 2**20, "tmp": 2**20, "shm": 2**20, "run": 2**20}
        if "memory" not in features.limits:
            await _refused(fresh, spec_kwargs, "memory", limits["memory"])
            return
        async with fresh(limits={k: v for k, v in limits.items() if k in features.limits}) as box:
            hog = "x=0123456789abcdef; while true; do x=$x$x; done"
            result = await box.exec(shell=hog, timeout=60)
            assert result.reason is Reason.OOM_KILLED
            assert (await box.exec(["true"])).ok

    async def test_processes_are_limited(
        self, fresh: Open, features: Features, spec_kwargs: dict[str, Any]
    ) -> None:
        """A command cannot start more than limits.pids; without the limit, UnsupportedError."""
        if "pids" not in features.limits:
            await _refused(fresh, spec_kwargs, "pids", 16)
            return
        async with fresh(limits={"pids": 16}) as sandbox:
            line = "i=0; while [ $i -lt 80 ]; do sleep 30 & i=$((i+1)); done; echo all"
            result = await sandbox.exec(shell=line, timeout=20)
            assert b"all" not in result.stdout
            await sandbox.kill_all()
            assert (await sandbox.exec(["true"])).ok


async def _status(sandbox: ringfence.Sandbox) -> dict[str, str]:
    text = (await sandbox.exec(["cat", "/proc/self/status"])).stdout.decode()
    rows = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in rows}


async def _refused(fresh: Open, spec_kwargs: Mapping[str, Any], name: str, value: int) -> None:
    with pytest.raises(ringfence.UnsupportedError, match=name):
        await fresh(limits={name: value}, security=undegraded(spec_kwargs))
