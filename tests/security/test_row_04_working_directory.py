"""Row 4, CVE-2024-21626: no working directory through a descriptor, and no descriptor to be had."""

import pytest

import ringfence
from ringfence.errors import InvalidSpecError

from .conftest import ALL, python

pytestmark = [pytest.mark.asyncio(loop_scope="module"), ALL]

PLACES = ["/proc/self/fd/7", "/proc/1/cwd", "/sys", "/dev/fd/3", "/a/../x", "/proc/self", "x", ""]


@pytest.mark.parametrize("cwd", PLACES)
async def test_a_working_directory_in_the_kernels_trees_is_refused(
    box: ringfence.Sandbox, cwd: str
) -> None:
    """As a spec's, as an exec's, and as the sandbox's."""
    with pytest.raises(InvalidSpecError):
        ringfence.SandboxSpec.parse({"cwd": cwd})
    with pytest.raises(InvalidSpecError):
        await box.exec(["true"], cwd=cwd)
    with pytest.raises(InvalidSpecError):
        await box.chdir(cwd)


async def test_a_link_to_a_descriptor_leads_to_nothing_of_the_host(box: ringfence.Sandbox) -> None:
    """Through a link of the sandbox's own: whatever is reached is the sandbox's root."""
    script = """
import os
for fd in range(64):
    try:
        os.unlink("/tmp/l")
    except FileNotFoundError:
        pass
    os.symlink(f"/proc/self/fd/{fd}", "/tmp/l")
    try:
        os.chdir("/tmp/l")
        print(fd, os.getcwd())
    except OSError:
        pass
"""
    assert await python(box, script) == ""
    for fd in range(3, 12):
        await box.exec(shell=f"ln -sfn /proc/self/fd/{fd} /tmp/l")
        try:
            result = await box.exec(["pwd", "-P"], cwd="/tmp/l")
        except ringfence.SandboxError:
            continue
        assert not result.ok or result.stdout == b"/\n", result.stdout


async def test_no_descriptor_of_the_guest_or_the_host_is_inherited(box: ringfence.Sandbox) -> None:
    script = "import os; print(sorted(int(fd) for fd in os.listdir('/proc/self/fd'))[:-1])"
    assert await python(box, script) == "[0, 1, 2]\n"
