"""What of the host is bound into a sandbox is looked at first."""

from pathlib import Path

import pytest

from ringfence.errors import PolicyDeniedError
from ringfence.policy import Facts
from ringfence.sandbox.binds import prepare
from ringfence.spec import SandboxSpec


@pytest.mark.parametrize("of", ["mounts", "repository"])
async def test_the_daemons_own_directory_is_not_bound_wherever_it_is(
    tmp_path: Path, of: str, state_directory: Path
) -> None:
    """It holds the file systems of all sandboxes."""
    for name in ("daemon/overlay2", "fine"):
        (tmp_path / name).mkdir(parents=True)
    facts = Facts(memory=1 << 33, cpus=1, nofile=1024, data_root=str(tmp_path / "daemon"))

    def asked(source: Path) -> SandboxSpec:
        mount = {"source": str(source), "destination": "/data"}
        repository = {"path": str(source), "mode": "ro"}
        return SandboxSpec.parse({"mounts": [mount]} if of == "mounts" else {of: repository})

    for source in ("daemon", "daemon/overlay2"):
        with pytest.raises(PolicyDeniedError, match="daemon"):
            await prepare(asked(tmp_path / source), "rf-x", facts)
    prepared = await prepare(asked(tmp_path / "fine"), "rf-x", facts)
    assert [bind.source for bind in prepared.binds] == [str(tmp_path / "fine")]
