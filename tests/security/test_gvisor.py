"""The same attacks where gVisor's kernel stands between a command and the host's."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import ringfence
from ringfence.sandbox.sandbox import Sandbox
from tests.conftest import require_gvisor
from tests.images import DEBIAN

pytestmark = [pytest.mark.docker, pytest.mark.gvisor]

ATTACKS = """
import errno, os, socket, sys
found = []
for path in ("/proc/1/exe", "/.ringfence/guest", "/etc/passwd", "/proc/sys/kernel/core_pattern"):
    try:
        open(path, "w")
        found.append("wrote " + path)
    except OSError:
        pass
for family in (40, 38, 17):
    try:
        socket.socket(family, socket.SOCK_STREAM)
        found.append(f"opened {family}")
    except OSError:
        pass
for address in ("169.254.169.254", "1.1.1.1"):
    with socket.socket() as one:
        one.settimeout(5)
        if one.connect_ex((address, 80)) == 0:
            found.append("reached " + address)
for path in ("/proc/keys", "/proc/kcore", "/sys/firmware"):
    try:
        if os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1):
            found.append("read " + path)
    except OSError:
        pass
print(found)
"""


@pytest.fixture
async def gvisor(state_directory: Path) -> AsyncIterator[Sandbox]:
    require_gvisor()
    async with ringfence.open(
        image=DEBIAN, backend="docker", security={"runtime": "runsc"}, limits={"timeout": 120}
    ) as sandbox:
        yield sandbox


async def test_nothing_of_the_host_is_reached(gvisor: Sandbox) -> None:
    result = await gvisor.exec(["python3", "-c", ATTACKS])
    assert result.stdout.strip() == b"[]", result.stderr
    kernel = (await gvisor.exec(["uname", "-r"])).stdout.decode().strip()
    assert kernel != os.uname().release


async def test_the_receipt_has_no_gap_and_says_what_is_not_shown(gvisor: Sandbox) -> None:
    assert gvisor.receipt.gaps == ()
    assert gvisor.receipt["runtime"].enforced == "runsc"
    assert gvisor.receipt["seccomp"].enforced == "gVisor's kernel answers every call itself"
    assert gvisor.receipt["ulimits.nofile"].enforced in ("not shown", "1024:1024")
