"""Row 26: how a command ended is the kernel's word; no code and no output feigns another end."""

import pytest

import ringfence
from ringfence.spec import Reason

from .conftest import ALL

pytestmark = [pytest.mark.asyncio(loop_scope="module"), ALL]


@pytest.mark.parametrize("code", [0, 1, 2, 124, 125, 126, 127, 128, 130, 137, 139, 143, 255])
async def test_every_code_is_an_exit(box: ringfence.Sandbox, code: int) -> None:
    """124 is no timeout, 126 and 127 no missing program, 137 neither a kill nor out of memory."""
    result = await box.exec(shell=f"exit {code}")
    assert (result.reason, result.exit_code, result.signal) == (Reason.EXITED, code, None)


@pytest.mark.parametrize("number", [1, 2, 6, 9, 11, 15, 31])
async def test_a_signal_of_its_own_is_a_signal(box: ringfence.Sandbox, number: int) -> None:
    """KILL by itself is neither our kill nor the kernel's for memory."""
    result = await box.exec(shell=f"kill -{number} $$; sleep 60")
    assert (result.reason, result.signal, result.exit_code) == (Reason.SIGNALED, number, None)


async def test_a_missing_program_is_told_apart(box: ringfence.Sandbox) -> None:
    result = await box.exec(["/no/such/program"])
    assert (result.reason, result.exit_code) == (Reason.NOT_STARTED, 127)


async def test_output_that_looks_like_the_protocol_is_output(box: ringfence.Sandbox) -> None:
    """Frames of a guest, written by a command, are bytes of its output."""
    frames = bytes(range(256)) + b"\0\0\0\5\x84\0\0\0\1" * 100
    await box.files.write("/tmp/frames", frames)
    result = await box.exec(shell="cat /tmp/frames; cat /tmp/frames >&2; exit 7")
    assert (result.stdout, result.stderr, result.exit_code) == (frames, frames, 7)
