"""Checks of a cgroup of its own for one command."""

from pathlib import PurePosixPath

import pytest

import ringfence
from ringfence import Reason
from ringfence.backends.base import Features
from ringfence.testing.base import Checks

_BURN = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"


class MeasuringChecks(Checks):
    """`exec(cgroup=True)`, where the backend gives one, and its refusal where not."""

    @pytest.fixture
    def measures(self, sandbox: ringfence.Sandbox, features: Features) -> bool:
        """Whether this sandbox gives commands a cgroup of their own."""
        return features.exec_cgroups and sandbox.info.transport == "socket"

    async def test_a_cgroup_is_given_or_refused_before_the_start(
        self, sandbox: ringfence.Sandbox, place: str, measures: bool
    ) -> None:
        """Its usage comes with the result; else UnsupportedError, and nothing has run."""
        mark = str(PurePosixPath(place, "ran"))
        if not measures:
            with pytest.raises(ringfence.UnsupportedError, match="cgroup"):
                await sandbox.exec(["touch", mark], cgroup=True)
            with pytest.raises(ringfence.UnsupportedError, match="cgroup"):
                await sandbox.spawn(["touch", mark], cgroup=True)
            assert not await sandbox.files.exists(mark)
            return
        result = await sandbox.exec(["touch", mark], cgroup=True)
        assert result.ok
        assert result.usage.cgroup is not None
        assert (result.usage.cgroup.cpu_seconds or 0) > 0
        assert (result.usage.cgroup.memory_peak or 0) > 0

    async def test_without_asking_there_is_none(self, sandbox: ringfence.Sandbox) -> None:
        """Nor does it cost anything."""
        assert (await sandbox.exec(["true"])).usage.cgroup is None

    async def test_a_cgroup_counts_children_that_nobody_waited_for(
        self, sandbox: ringfence.Sandbox, place: str, measures: bool
    ) -> None:
        """Which the usage of the main process leaves out."""
        if not measures:
            await _refused(sandbox)
            return
        line = f"mkfifo done; ({_BURN}; echo x >done; exec sleep 300) >/dev/null & cat done"
        result = await sandbox.exec(shell=line, cwd=place, cgroup=True)
        await sandbox.kill_all()
        usage = result.usage
        assert (result.stdout, result.survivors) == (b"x\n", True)
        assert usage.cgroup is not None
        assert (usage.cgroup.cpu_seconds or 0) > 2 * (usage.user_seconds + usage.system_seconds)
        assert (usage.cgroup.pids_peak or 2) >= 2

    async def test_a_cgroup_tells_of_a_command_that_timed_out(
        self, sandbox: ringfence.Sandbox, measures: bool
    ) -> None:
        """Whose family was killed."""
        if not measures:
            await _refused(sandbox)
            return
        line = f"({_BURN}; sleep 300) & sleep 300"
        result = await sandbox.exec(shell=line, timeout=0.5, grace=0.0, cgroup=True)
        assert result.reason is Reason.TIMEOUT
        assert result.usage.cgroup is not None
        assert (result.usage.cgroup.cpu_seconds or 0) > 0
        assert result.usage.cgroup.pids == 0

    async def test_a_spawned_command_can_have_a_cgroup(
        self, sandbox: ringfence.Sandbox, measures: bool
    ) -> None:
        """Its usage comes with `wait`, also after it was killed; not for one that is held."""
        if not measures:
            await _refused(sandbox)
            return
        async with sandbox.spawn(["cat"], cgroup=True) as process:
            result = await process.communicate(b"text")
        assert result.stdout == b"text"
        assert result.usage.cgroup is not None
        async with sandbox.spawn(["sleep", "300"], cgroup=True) as process:
            pass
        assert (await process.wait()).usage.cgroup is not None
        with pytest.raises(ringfence.InvalidSpecError, match="hold"):
            await sandbox.spawn(["cat"], cgroup=True, hold=True)

    async def test_a_missing_program_is_127_in_a_cgroup_too(
        self, sandbox: ringfence.Sandbox, measures: bool
    ) -> None:
        """And a directory that is missing is what it is without."""
        if not measures:
            await _refused(sandbox)
            return
        result = await sandbox.exec(["no-such-program-here"], cgroup=True)
        assert (result.exit_code, result.reason) == (127, Reason.NOT_STARTED)
        with pytest.raises(ringfence.FileError):
            await sandbox.exec(["true"], cwd="/no/such/place", cgroup=True)


async def _refused(sandbox: ringfence.Sandbox) -> None:
    with pytest.raises(ringfence.UnsupportedError, match="cgroup"):
        await sandbox.exec(["true"], cgroup=True)
