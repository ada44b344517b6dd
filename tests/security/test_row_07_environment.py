"""Row 7: nothing of the host's environment gets in, and no secret of a spec lies open on the host."""

import contextlib
import subprocess
from pathlib import Path

import pytest

import ringfence

from .conftest import BOTH, DOCKER, PROCESS, keywords, sh

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "hunter2-of-the-host"


@BOTH
async def test_nothing_of_the_hosts_environment_is_inherited(box: ringfence.Sandbox) -> None:
    """Neither by a command nor by any process that it can look at."""
    seen = await sh(box, "env")
    names = {line.partition("=")[0] for line in seen.splitlines()}
    assert TOKEN not in seen
    assert {"PATH", "HOME", "LANG", "TERM"} <= names
    first = await sh(box, "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert TOKEN not in first


@pytest.mark.parametrize("kind", [DOCKER, PROCESS])
async def test_a_secret_among_the_variables_shows_nowhere_on_the_host(
    state: Path, kind: str
) -> None:
    """No argument of a process, no description of a container and no label holds it."""
    secret = "s3cret-" + "0d1e2f"
    async with ringfence.open(**keywords(kind), env={"API_TOKEN": secret}) as sandbox:
        assert await sh(sandbox, "echo $API_TOKEN") == f"{secret}\n"
        async with sandbox.spawn(["sleep", "60"]):
            lines = _command_lines()
        assert not any(secret.encode() in line for line in lines)
        if kind == "docker":
            listed = ["docker", "ps", "-q", "--filter", f"label=ringfence.id={sandbox.id}"]
            container = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
            shown = ["docker", "inspect", container.strip()]
            text = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
            assert sandbox.id in text
            assert secret not in text


def _command_lines() -> list[bytes]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((place / "cmdline").read_bytes())
    return found


@BOTH
async def test_keys_and_kernel_tables_tell_nothing(box: ringfence.Sandbox) -> None:
    """What of /proc speaks of the host is masked."""
    files = "/proc/keys /proc/timer_list /proc/interrupts /proc/sched_debug /proc/kcore"
    assert await sh(box, f"head -c 4096 {files} 2>/dev/null | grep -v '^==>' | tr -d '\\n'") == ""


@BOTH
async def test_no_file_of_the_host_that_holds_secrets_is_seen(box: ringfence.Sandbox) -> None:
    """Whatever the sandbox is made of: no password hashes, homes or host keys that can be read."""
    script = "cat /etc/shadow /etc/gshadow /etc/ssh/ssh_host* /root/.ssh/* /root/.* 2>/dev/null"
    assert await sh(box, script) == ""
    assert await sh(box, "ls -A /root /home/* 2>/dev/null | grep -v : | grep -c ssh") == "0\n"
