"""What of the host a command may learn: nothing of its environment, names or secrets."""

import pytest

import ringfence
from ringfence.errors import InvalidSpecError
from ringfence.sandbox.sandbox import Sandbox

pytestmark = pytest.mark.docker


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """A secret in the environment of the process that opens the sandbox."""
    monkeypatch.setenv("HOST_TOKEN", "hunter2")
    return "hunter2"


async def test_nothing_of_the_hosts_environment_is_inherited(token: str, strict: Sandbox) -> None:
    seen = (await strict.exec(["env"])).stdout.decode()
    names = {line.partition("=")[0] for line in seen.splitlines()}
    assert token not in seen
    assert {"PATH", "HOME", "LANG", "TERM"} <= names
    first = await strict.exec(shell="cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert token.encode() not in first.stdout


@pytest.mark.parametrize("name", ["A=B", "1A", "A B", "", "A\0", "A\n", "LD_PRELOAD\0=x"])
async def test_what_is_no_name_of_a_variable_is_refused(strict: Sandbox, name: str) -> None:
    with pytest.raises(InvalidSpecError):
        await strict.exec(["true"], env={name: "x"})
    with pytest.raises(InvalidSpecError):
        ringfence.SandboxSpec.parse({"env": {name: "x"}})


async def test_a_users_preload_is_the_commands_alone(strict: Sandbox) -> None:
    """The guest is static and takes no environment: a variable cannot load code into it."""
    result = await strict.exec(["true"], env={"LD_PRELOAD": "/no/such.so", "LD_AUDIT": "/x.so"})
    assert result.exit_code == 0
    assert (await strict.exec(["true"])).stderr == b""


async def test_arguments_are_never_a_shells(strict: Sandbox) -> None:
    odd = ["$(id)", "`id`", "; id", "a\nb", "-n", "--", "*", "\udcff", "'\""]
    result = await strict.exec(["printf", "%s\\0", *odd])
    assert result.stdout.split(b"\0")[:-1] == [
        text.encode("utf-8", "surrogateescape") for text in odd
    ]


async def test_keys_and_kernel_tables_tell_nothing(strict: Sandbox) -> None:
    script = "cat /proc/keys /proc/timer_list /proc/interrupts /proc/sched_debug 2>/dev/null; true"
    assert (await strict.exec(shell=script)).stdout == b""
