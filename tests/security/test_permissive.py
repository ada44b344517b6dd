"""What only `permissive` gives, field by field: enough for a package manager, and it stands out."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import ringfence
from ringfence.sandbox.sandbox import Sandbox
from tests.conftest import require_docker

pytestmark = pytest.mark.docker

IMAGE = "ringfence-test/debian"
CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]
INSTALL = """
set -e
mkdir -p /scratch/p/DEBIAN /scratch/p/usr/share/hello /scratch/p/usr/bin
cat > /scratch/p/DEBIAN/control <<'END'
Package: hello-ringfence
Version: 1
Architecture: all
Maintainer: a <a@example.com>
Description: a package
END
printf '#!/bin/sh\\nchown 33:33 /usr/share/hello/x\\n' > /scratch/p/DEBIAN/postinst
printf '#!/bin/sh\\necho installed\\n' > /scratch/p/usr/bin/hello-ringfence
chmod 755 /scratch/p/DEBIAN/postinst /scratch/p/usr/bin/hello-ringfence
echo x > /scratch/p/usr/share/hello/x
dpkg-deb -b /scratch/p /scratch/hello.deb >/dev/null
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends /scratch/hello.deb >/scratch/log 2>&1 \
    || { cat /scratch/log; exit 1; }
stat -c '%u' /usr/share/hello/x
hello-ringfence
"""


@pytest.fixture
async def sandbox(state_directory: Path) -> AsyncIterator[Sandbox]:
    require_docker(IMAGE)
    async with ringfence.open(
        image=IMAGE,
        backend="docker",
        profile="permissive",
        user="root",
        security={
            "read_only_root": False,
            "capabilities": CAPABILITIES,
            "tmpfs": {"/scratch": "64m"},
        },
    ) as sandbox:
        yield sandbox


async def test_a_package_manager_installs(sandbox: Sandbox) -> None:
    """apt and dpkg unpack as root, hand files to other users and run the package's scripts."""
    result = await sandbox.exec(shell=INSTALL)
    assert result.ok, (result.stdout + result.stderr).decode()
    assert result.stdout.split() == [b"33", b"installed"]


async def test_it_stands_out_in_the_receipt(sandbox: Sandbox) -> None:
    """What is relaxed is shown as the kernel has it, for root's commands; others have nothing."""
    receipt = sandbox.receipt
    assert receipt.gaps == ()
    assert receipt["user"].enforced == "0:0"
    assert receipt["read_only_root"].enforced == "writable"
    for name in CAPABILITIES:
        assert name in receipt["capabilities"].enforced
    status = await sandbox.exec(["cat", "/proc/self/status"], user=1000)
    masks = [line for line in status.stdout.decode().splitlines() if line.startswith("CapEff")]
    assert masks == ["CapEff:\t0000000000000000"]


async def test_what_is_not_given_is_still_denied(sandbox: Sandbox) -> None:
    """Root there is not the host's: nothing can be mounted, no module loaded, no device made."""
    for command in ("mount -t tmpfs x /mnt", "mknod /scratch/sda b 8 0", "chroot / true",
                    "hostname other", "unshare -n true"):  # fmt: skip
        result = await sandbox.exec(shell=command)
        assert not result.ok, command
