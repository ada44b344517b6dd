"""Row 3, CVE-2019-5736: the host's program that runs inside cannot be written from inside."""

import hashlib

import pytest

import ringfence
from ringfence.guest import build

from .conftest import ALL, sh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), ALL]

ATTACK = """
for target in /proc/1/exe /proc/self/exe /proc/$PPID/exe /.ringfence/guest /bin/sh; do
    (echo evil > $target) 2>/dev/null && echo "wrote $target"
done
(exec 3>/.ringfence/guest) 2>/dev/null && echo opened
rm -f /.ringfence/guest 2>/dev/null && echo removed
mv /.ringfence/guest /.ringfence/x 2>/dev/null && echo moved
ln -s /bin/sh /.ringfence/x 2>/dev/null && echo made
chmod 777 /.ringfence/guest 2>/dev/null && echo changed
true
"""


async def test_neither_the_guest_nor_a_system_program_can_be_overwritten(
    box: ringfence.Sandbox,
) -> None:
    """Through /proc/1/exe, /proc/self/exe or its path; the file on the host is what it was."""
    before = hashlib.sha256(build.target().read_bytes()).digest()
    assert await sh(box, ATTACK) == ""
    assert hashlib.sha256(build.target().read_bytes()).digest() == before


async def test_the_guest_run_again_gives_nothing(box: ringfence.Sandbox) -> None:
    """A command may start the guest's program; it is one more process of the command's user."""
    await sh(box, "/.ringfence/guest --socket /.ringfence </dev/null; true", timeout=1.0, grace=0.0)
    await sh(
        box,
        "/.ringfence/guest --enter --capabilities ff -- /bin/sh -c id </dev/null; true",
        timeout=1.0,
        grace=0.0,
    )
    assert (await box.exec(["id", "-u"])).stdout != b"0\n"
