"""Row 23: variables reach the command alone, and what is no variable is refused."""

import pytest

import ringfence
from ringfence.errors import InvalidSpecError

from .conftest import BOTH, sh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), BOTH]

LOADER = {"LD_PRELOAD": "/no/such.so", "LD_AUDIT": "/x.so", "GLIBC_TUNABLES": "x=y", "IFS": "/"}


@pytest.mark.parametrize("name", ["A=B", "1A", "A B", "", "A\0", "A\n", "LD_PRELOAD\0=x", "é"])
async def test_what_is_no_name_of_a_variable_is_refused(box: ringfence.Sandbox, name: str) -> None:
    """In an exec, in a spec, and in the sandbox's own variables."""
    with pytest.raises(InvalidSpecError):
        await box.exec(["true"], env={name: "x"})
    with pytest.raises(InvalidSpecError):
        ringfence.SandboxSpec.parse({"env": {name: "x"}})
    with pytest.raises(InvalidSpecError):
        box.env[name] = "x"
    assert (await box.exec(["true"])).ok


async def test_a_value_cannot_carry_another_variable(box: ringfence.Sandbox) -> None:
    with pytest.raises(InvalidSpecError):
        await box.exec(["true"], env={"A": "x\0B=y"})
    assert await sh(box, 'echo "$A"; echo $B', env={"A": "x\nB=y"}) == "x\nB=y\n\n"


async def test_too_much_is_refused_before_it_is_sent(box: ringfence.Sandbox) -> None:
    with pytest.raises(ringfence.SandboxError):
        await box.exec(["true"], env={"A": "x" * (4 * 2**20)})
    assert (await box.exec(["true"])).ok


async def test_a_loaders_variable_is_the_commands_alone(box: ringfence.Sandbox) -> None:
    """The guest is static and takes no environment: no variable loads code into it, and file
    operations and later commands are as before."""
    result = await box.exec(["true"], env=LOADER)
    assert result.exit_code == 0
    await box.files.write("/tmp/x", b"x")
    assert (await box.exec(["true"])).stderr == b""
    box.env.update(LOADER)
    try:
        assert await box.files.read("/tmp/x") == b"x"
        assert (await box.exec(["true"])).exit_code == 0
        found = await box.exec(["cat", "/tmp/x"], env=dict.fromkeys(LOADER, None))
        assert (found.stdout, found.stderr) == (b"x", b"")
    finally:
        for name in LOADER:
            del box.env[name]


async def test_a_search_path_of_the_commands_finds_no_program_for_the_guest(
    box: ringfence.Sandbox,
) -> None:
    """PATH decides where the command is looked for, with its user's rights; no other program is."""
    await sh(
        box, "mkdir /tmp/bin; printf '#!/bin/sh\\necho evil\\n' > /tmp/bin/sh; chmod +x /tmp/bin/sh"
    )
    result = await box.exec(shell="echo fine", env={"PATH": "/tmp/bin:/usr/bin:/bin"})
    assert result.stdout == b"fine\n"
