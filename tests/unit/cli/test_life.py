"""`pause`, `resume`, `extend`, `snapshot` and `inspect`: what they ask for, and what they print."""

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

import ringfence
from ringfence.cli.app import run
from ringfence.sandbox import members
from ringfence.spec import SandboxInfo, State

INFO = SandboxInfo("ab12", "mock", State.RUNNING, None, None, 940.0, 1090.0, True, {"a": "b"})


@dataclass(frozen=True)
class Kept:
    digest: str = "sha256:1"
    size: int = 5


class Sandbox:
    """What was asked of it."""

    info = INFO
    receipt = SimpleNamespace(to_dict=lambda: {"controls": []})

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def extend(self, by: str) -> None:
        self.asked.append(("extend", by))

    async def snapshot(self) -> Kept:
        return Kept()

    def member(self, what: str) -> Callable[[str], Any]:
        async def do(name: str) -> None:
            self.asked.append((what, name))

        return do


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    found = Sandbox()

    @asynccontextmanager
    async def opened(**given: object) -> AsyncIterator[Sandbox]:
        assert given["id"] == "ab12"
        yield found

    monkeypatch.setattr(ringfence, "open", opened)
    for what in ("pause", "resume"):
        monkeypatch.setattr(members, f"{what}_sandbox", found.member(what))
    return found


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("pause ab12", ("pause", "ab12")),
        ("resume ab12", ("resume", "ab12")),
        ("extend ab12 30m", ("extend", "30m")),
    ],
)
def test_a_verb_of_its_life_asks_for_just_that(
    words: str, asked: tuple[str, str], sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(words.split()) == 0
    assert sandbox.asked == [asked]
    assert capfd.readouterr() == ("", "")


def test_a_snapshot_prints_its_digest_or_all_of_it(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["snapshot", "ab12"]) == 0
    assert capfd.readouterr().out == "sha256:1\n"
    assert run(["snapshot", "ab12", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"digest": "sha256:1", "size": 5}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_inspect_opens_none_that_another_version_made(
    elsewhere: bool, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Of it the record is all that is known: no receipt."""

    async def from_elsewhere(_name: str) -> SandboxInfo | None:
        return replace(INFO, warning="odd") if elsewhere else None

    monkeypatch.setattr(members, "from_elsewhere", from_elsewhere)
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert run(["inspect", "ab12", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["receipt"] == (None if elsewhere else {"controls": []})
    assert told["sandbox"]["warning"] == ("odd" if elsewhere else None)
    assert run(["inspect", "ab12"]) == 0
    shown = capfd.readouterr().out.partition("\n\n")
    fields = dict(line.split(maxsplit=1) for line in shown[0].splitlines())
    assert (fields["created"], fields["ends"], fields["labels"]) == ("1m ago", "in 1m", "a=b")
    assert bool(shown[2]) is not elsewhere
