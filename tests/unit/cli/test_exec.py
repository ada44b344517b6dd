"""`exec` and `create`: what they ask for, what they print and how they end."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import ringfence
from ringfence.cli import create, relay
from ringfence.cli.app import run
from ringfence.errors import StateError
from ringfence.sandbox import members
from ringfence.spec import ExecResult, ExecUsage, Reason, SandboxInfo, State

RESULT = ExecResult(("x",), 3, None, Reason.EXITED, b"out", b"", 3, 0, 0.1, ExecUsage())
INFO = SandboxInfo("ab12", "mock", State.RUNNING, None, None, 0.0, 60.0, True, {})


class Opened:
    """What was asked for; `result` is what the command ends with."""

    result = RESULT

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        self.info = replace(INFO, state=State.EXITED, reason="idle_timeout")

    async def relay(self, sandbox: object, args: list[str], **given: object) -> ExecResult:
        assert sandbox is self
        self.given |= {"args": args, **given}
        return self.result


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Opened:
    found = Opened()

    @asynccontextmanager
    async def opened(**given: object) -> AsyncIterator[Opened]:
        found.given |= given
        yield found

    monkeypatch.setattr(ringfence, "open", opened)
    monkeypatch.setattr(relay, "relay", found.relay)
    return found


def test_what_exec_is_told_reaches_the_command(
    sandbox: Opened, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HERE", "h")
    words = "-e A=b=c -e HERE -w /tmp -u 5:6 -t 1m --cgroup --audit log ab12 make -k"
    assert run(["exec", *words.split()]) == 3
    audit = sandbox.given.pop("audit")
    assert str(audit) == "log"
    assert sandbox.given == {
        "id": "ab12", "args": ["make", "-k"], "show": True, "env": {"A": "b=c", "HERE": "h"},
        "cwd": "/tmp", "user": "5:6", "timeout": "1m", "cgroup": True,
    }  # fmt: skip
    assert capfd.readouterr().out == ""


def test_exec_for_who_reads_json_shows_nothing_beside_the_document(
    sandbox: Opened, capfd: pytest.CaptureFixture[str]
) -> None:
    sandbox.result = replace(RESULT, reason=Reason.TIMEOUT)
    assert run(["exec", "--json", "ab12", "make"]) == 124
    told = capfd.readouterr()
    assert json.loads(told.out)["result"]["stdout"] == "out"
    assert (sandbox.given["show"], told.err) == (False, "")


def test_why_a_sandbox_ended_before_the_command_is_told(
    sandbox: Opened, capfd: pytest.CaptureFixture[str]
) -> None:
    sandbox.result = replace(RESULT, exit_code=None, reason=Reason.SANDBOX_LOST)
    assert run(["exec", "ab12", "make"]) == 125
    assert "before the command: idle_timeout" in capfd.readouterr().err


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was opened, by its spec and its log, and what was deleted, by its id."""
    found: list[Any] = []

    @asynccontextmanager
    async def opened(*given: object) -> AsyncIterator[Any]:
        found.append(given)
        yield SimpleNamespace(info=INFO)

    async def delete(name: str) -> None:
        found.append(name)

    monkeypatch.setattr(create, "opened", opened)
    monkeypatch.setattr(members, "delete_sandbox", delete)
    return found


def test_create_makes_one_that_goes_on_and_prints_its_id_or_all_of_it(
    made: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["create", "--lifetime", "1h"]) == 0
    assert capfd.readouterr().out == "ab12\n"
    assert run(["create", "--lifetime", "1h", "--json", "--audit", "log"]) == 0
    assert json.loads(capfd.readouterr().out)["ends"] == 60.0
    assert [(spec.detached, spec.lifetime) for spec, _ in made] == [(True, 3600.0)] * 2
    assert [audit and str(audit) for _, audit in made] == [None, "log"]


def test_create_wants_to_know_for_how_long(
    made: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["create"]) == 2
    assert "--lifetime" in capfd.readouterr().err
    assert made == []


def test_what_nobody_was_told_of_is_deleted_and_what_was_never_made_is_not(
    made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread(_text: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("ringfence.cli.output.line", unread)
    monkeypatch.setattr("ringfence.cli.output.silence", lambda: None)
    assert run(["create", "--lifetime", "1h"]) == 141
    assert made[1:] == ["ab12"]

    @asynccontextmanager
    async def refused(*_: object) -> AsyncIterator[Any]:
        raise StateError("no", op="create")
        yield

    monkeypatch.setattr(create, "opened", refused)
    assert run(["create", "--lifetime", "1h"]) == 125
    assert made[1:] == ["ab12"]
