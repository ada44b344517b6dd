"""`ps`, `rm` and `reap`: of which sandboxes they tell, and in what form."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from ringfence import ledger
from ringfence.cli.app import run
from ringfence.errors import StateError
from ringfence.ledger.reaper import Reaped
from ringfence.sandbox import members
from ringfence.spec import SandboxInfo, State

pytestmark = pytest.mark.usefixtures("state_directory")

ONE = SandboxInfo("ab12", "mock", State.RUNNING, None, None, 0.0, None, True, {"agent": "7"})
TWO = replace(ONE, id="cd34", backend="docker", image="debian", labels={}, warning="odd\x1b[2J")


class Members:
    """Who is there; what was asked of them."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.deleted: list[str] = []

    async def listed(self, *, labels: Mapping[str, str], ended: bool = False) -> list[SandboxInfo]:
        self.asked.append((dict(labels), ended))
        return [ONE, TWO]

    async def delete(self, name: str) -> SandboxInfo:
        self.deleted.append(name)
        if name == "cd34":
            raise StateError("it stays", op="delete", sandbox_id=name)
        return replace(ONE, state=State.EXITED, reason="deleted")


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Members:
    found = Members()
    monkeypatch.setattr(members, "list_sandboxes", found.listed)
    monkeypatch.setattr(members, "delete_sandbox", found.delete)
    return found


@pytest.mark.parametrize(
    ("words", "labels", "ended"),
    [("", {}, False), ("-a", {}, True), ("-l agent=7 -l b=c=d", {"agent": "7", "b": "c=d"}, False)],
)
def test_ps_tells_of_those_that_were_asked_for(
    words: str, labels: dict[str, str], ended: bool, there: Members
) -> None:
    assert run(["ps", *words.split()]) == 0
    assert there.asked == [(labels, ended)]


def test_ps_is_a_table_or_ids_or_a_document_and_warns_beside_it(
    there: Members, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = []
    for words in ([], ["-q"], ["--json"]):
        assert run(["ps", *words]) == 0
        out, err = capfd.readouterr()
        assert err == "ringfence: warning: cd34: odd\\x1b[2J\n"
        shown.append(out)
    table, ids, document = shown
    assert ids == "ab12\ncd34\n"
    assert [one["id"] for one in json.loads(document)] == ["ab12", "cd34"]
    head, *rows = [line.split() for line in table.splitlines()]
    assert head == ["ID", "STATE", "BACKEND", "IMAGE", "CREATED", "ENDS", "LABELS"]
    assert [(*row[:4], *row[6:]) for row in rows] == [
        ("ab12", "running", "mock", "-", "-", "agent=7"),
        ("cd34", "running", "docker", "debian", "-"),
    ]


def test_ps_says_of_whom_no_runtime_could_be_asked_and_why(
    there: Members, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    away = replace(ONE, reason="unknown: no daemon\x1b[2J: start it")

    async def listed(**_: Any) -> list[SandboxInfo]:
        return [away]

    monkeypatch.setattr(members, "list_sandboxes", listed)
    assert run(["ps"]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[1].split()[:2] == ["ab12", "unknown"]
    assert err == "ringfence: warning: ab12: state unknown: no daemon\\x1b[2J: start it\n"


def test_rm_removes_who_is_named_and_who_has_the_label(
    there: Members, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each is told, and the rest removed, where one stays."""
    assert run(["rm", "ef", "--label", "agent=7"]) == 1
    assert (there.deleted, there.asked) == (["ef", "ab12", "cd34"], [({"agent": "7"}, False)])
    assert capfd.readouterr() == ("ab12\nab12\n", "ringfence: it stays\n")


def test_rm_of_a_label_that_nobody_has_is_no_failure(
    there: Members, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def nobody(**_: object) -> list[SandboxInfo]:
        return []

    monkeypatch.setattr(members, "list_sandboxes", nobody)
    assert run(["rm", "--label", "agent=8"]) == 0
    assert (there.deleted, capfd.readouterr().out) == ([], "")


def test_rm_tells_in_a_document_what_is_gone_and_what_is_not(
    there: Members, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["rm", "ab12", "cd34", "--json"]) == 1
    document = json.loads(capfd.readouterr().out)
    assert [(one["id"], one["reason"]) for one in document["deleted"]] == [("ab12", "deleted")]
    assert [(one["sandbox_id"], one["code"]) for one in document["errors"]] == [("cd34", "state")]


@pytest.mark.parametrize(("error", "code"), [(None, 0), ("busy\n", 1)])
def test_reap_tells_why_each_ended_or_is_still_there(
    error: str | None, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def sweep(_book: object) -> list[Reaped]:
        return [Reaped("ab12", "lifetime"), Reaped("cd34", "client_lost", error)]

    monkeypatch.setattr(ledger, "reap", sweep, raising=False)
    assert run(["reap"]) == code
    said = "busy\\x0a" if error else "client_lost"
    assert capfd.readouterr().out == f"ab12  lifetime\ncd34  {said}\n"
    assert run(["reap", "--json"]) == code
    assert [one["error"] for one in json.loads(capfd.readouterr().out)] == [None, error]
