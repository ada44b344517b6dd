"""A package is installed from an allowed repository under `permissive`, and under no other profile."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.events import EgressDecided
from tests.conftest import missing, require_docker, require_root
from tests.images import DEBIAN

from .internet import Site, site

pytestmark = pytest.mark.docker

HOST = "packages.test"
CONTROL = """\
Package: tiny-ringfence
Version: 1.0
Architecture: all
Maintainer: nobody <nobody@example.com>
Description: one program
"""
ASKED: dict[str, Any] = {
    "image": DEBIAN,
    "backend": "docker",
    "user": "root",
    "security": {
        "read_only_root": False,
        "capabilities": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"],
    },
    "network": {"mode": "proxy", "allow": [HOST]},
    "limits": {"timeout": 120},
}
INSTALL = f"""
set -e
rm -rf /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] http://{HOST}/ ./' > /etc/apt/sources.list
apt-get update
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends tiny-ringfence
tiny-ringfence
"""


def publish(directory: Path, work: Path) -> None:
    """A repository of one package, without signatures."""
    program = work / "usr" / "bin" / "tiny-ringfence"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho it is installed\n")
    program.chmod(0o755)
    (work / "DEBIAN").mkdir()
    (work / "DEBIAN" / "control").write_text(CONTROL)
    package = directory / "tiny-ringfence_1.0_all.deb"
    build = ["dpkg-deb", "--root-owner-group", "-b", str(work), str(package)]
    subprocess.run(build, check=True, capture_output=True, timeout=60)
    content = package.read_bytes()
    entry = (
        f"{CONTROL}Filename: ./{package.name}\nSize: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
    )
    (directory / "Packages").write_text(entry)
    told = hashlib.sha256(entry.encode()).hexdigest()
    (directory / "Release").write_text(f"SHA256:\n {told} {len(entry)} Packages\n")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    require_root()
    require_docker(DEBIAN)
    if shutil.which("dpkg-deb") is None:
        missing("dpkg-deb is not installed: apt-get install dpkg")
    public = tmp_path / "public"
    public.mkdir()
    work = tmp_path / "work"
    work.mkdir(mode=0o755)
    publish(public, work)
    with site(public) as found:

        async def resolve(host: str, port: int) -> Sequence[str]:
            if host != HOST:
                raise OSError(f"{host}: no such name")
            return [found.address]

        monkeypatch.setattr("ringfence.network.proxy.resolve", resolve)
        yield found


async def test_apt_installs_through_the_proxy_under_permissive(
    repository: Site, state_directory: Path
) -> None:
    async with ringfence.open(profile="permissive", **ASKED) as sandbox:
        result = await sandbox.exec(shell=INSTALL)
        assert result.ok, (result.stdout + result.stderr).decode()
        assert result.stdout.endswith(b"it is installed\n")
        decisions = {(e.host, e.allowed) for e in sandbox.history if isinstance(e, EgressDecided)}
        assert decisions == {(HOST, True)}
    assert "/./tiny-ringfence_1.0_all.deb" in {path for path, _ in repository.seen}


@pytest.mark.parametrize("profile", ["strict", "standard"])
async def test_the_same_is_denied_under_another_profile(
    profile: str, state_directory: Path
) -> None:
    """All that permissive alone gives is named at once, before anything starts."""
    require_docker(DEBIAN)
    with pytest.raises(ringfence.PolicyDeniedError) as caught:
        async with ringfence.open(profile=profile, **ASKED):
            pass
    for field in ("user", "read_only_root", "capabilities"):
        assert field in str(caught.value)
