"""Ctrl-C and SIGTERM when no command is there that they could go to."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from ringfence.cli import exec as executing
from ringfence.cli import relay, watch
from ringfence.cli.app import run

_INTERRUPTED = """
import sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
from ringfence.cli import main
main()
"""


def test_ctrl_c_while_modules_are_imported_is_130_without_a_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, "--version"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


_AT = """
import asyncio, os, sys
from ringfence.backends.mock import MockBackend, MockInstance
from ringfence.cli.app import run

number, moment = int(sys.argv[1]), sys.argv[2]
cls = {"create": MockBackend, "delete": MockInstance}[moment]
step = getattr(cls, moment)

async def at(self, *args, **kw):
    os.kill(os.getpid(), number)
    await asyncio.sleep(0)
    done = await step(self, *args, **kw)
    print(moment, "ended", file=sys.stderr)
    return done

setattr(cls, moment, at)
sys.exit(run(["run", "--backend", "mock", *sys.argv[3:], "--", "echo", "ran"]))
"""


@pytest.mark.parametrize(
    ("moment", "out", "err"), [("create", b"", b""), ("delete", b"ran\n", b"delete ended\n")]
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_exit_code_says_which_signal_came_and_what_was_begun_is_cleared_up(
    number: int, code: int, moment: str, out: bytes, err: bytes, state_directory: Path
) -> None:
    """While the sandbox is opened there is no command yet; while it is deleted, none any more."""
    done = subprocess.run(
        [sys.executable, "-c", _AT, str(int(number)), moment],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)


@pytest.mark.parametrize("moment", ["create", "delete"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_reads_json_is_told_of_an_interrupt_in_a_document(
    number: int, code: int, moment: str, state_directory: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AT, str(int(number)), moment, "--json"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code
    assert json.loads(done.stdout)["error"]["code"] == "interrupted"


@pytest.mark.parametrize("ended", [KeyboardInterrupt(), typer.Exit(130)], ids=repr)
def test_a_command_that_was_left_is_a_document_too_and_samples_that_were_ended_are_none(
    ended: BaseException, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C is how `stats` ends: what it printed until then is what it was asked for."""

    async def left(*_: object) -> int:
        raise ended

    monkeypatch.setattr(executing, "_exec", left)
    assert run(["exec", "ab12", "--json", "true"]) == 130
    assert json.loads(capfd.readouterr().out)["error"]["code"] == "interrupted"
    monkeypatch.setattr(watch, "_stats", left)
    if isinstance(ended, KeyboardInterrupt):
        assert run(["stats", "--json"]) == 130
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("number", "second", "code"),
    [
        (signal.SIGINT, signal.SIGINT, 130),
        (signal.SIGINT, signal.SIGTERM, 143),
        (signal.SIGTERM, None, 143),
    ],
)
async def test_beside_other_commands_a_stubborn_one_is_left_with_the_code_of_the_last_signal(
    number: int, second: int | None, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_GRACE_SECONDS", 0)
    listed = [SimpleNamespace(id=1, running=True)]
    begun = asyncio.Event()

    async def processes() -> list[Any]:
        return listed

    async def forever(*args: object, **kw: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    sandbox: Any = SimpleNamespace(
        info=SimpleNamespace(detached=True), processes=processes, exec=forever
    )
    before = signal.getsignal(number)
    told = asyncio.create_task(relay.relay(sandbox, ["true"]))
    await begun.wait()
    signal.raise_signal(number)
    if second is not None:
        await asyncio.sleep(0)
        signal.raise_signal(second)
    with pytest.raises(typer.Exit) as ended:
        await told
    assert ended.value.exit_code == code
    assert signal.getsignal(number) is before
