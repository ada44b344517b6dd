"""`ringfence stats` says whom it could not measure."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from rich.console import Console

import ringfence
from ringfence.cli import watch
from ringfence.cli.app import run
from ringfence.sandbox import members
from ringfence.sandbox.control import Health
from ringfence.spec import State, Usage


@pytest.mark.parametrize(
    ("names", "code", "said"), [(["ab1"], 0, ""), ([], 0, ""), (["ab1", "cd2"], 1, "of cd2: ended")]
)
def test_one_sample_ends_with_1_when_somebody_named_is_not_in_it(
    names: list[str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def usages(_names: Sequence[str]) -> AsyncIterator[tuple[str, Usage]]:
        yield "ab12", Usage(memory=1 << 20)

    monkeypatch.setattr(members, "usages", usages)
    assert run(["stats", *names, "--once"]) == code
    out, err = capfd.readouterr()
    assert "ab12" in out
    assert said in err
    assert bool(err) == bool(said)


@pytest.mark.parametrize("console", [{"file": None}, {"force_terminal": True, "term": "dumb"}])
def test_what_draws_nothing_anew_gets_a_table_a_sample(
    console: dict[str, object], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file, a pipe or a terminal that moves no cursor: at once, not at the end."""
    samples = 0

    async def usages(_names: Sequence[str]) -> AsyncIterator[tuple[str, Usage]]:
        nonlocal samples
        samples += 1
        if samples == 3:
            raise KeyboardInterrupt
        yield f"ab{samples}", Usage(memory=1 << 20)

    environment = {"TERM": str(console.pop("term", "xterm"))}
    monkeypatch.setattr(
        "rich.console.Console",
        lambda: Console(**console, _environ=environment),  # type: ignore[arg-type]
    )
    monkeypatch.setattr(members, "usages", usages)
    assert run(["stats", "--interval", "0.1"]) == 130
    out = capfd.readouterr().out
    assert out.count("ID ") == 2
    assert out.index("ab1") < out.index("ab2")
    assert "\x1b" not in out


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf"])
def test_an_interval_that_is_none_is_named(
    interval: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["stats", "--once", "--interval", interval]) == 125
    assert "interval" in capfd.readouterr().err


def test_the_cores_in_use_are_those_since_the_last_sample() -> None:
    """None where no time has passed, or nothing was measured."""
    before, now = Usage(cpu_seconds=3.0, uptime=10.0), Usage(cpu_seconds=8.0, uptime=12.0)
    assert watch._cores(before, now) == 2.5
    assert watch._cores(None, now) == watch._cores(now, now) == watch._cores(Usage(), now) == 0


def test_a_row_has_the_cores_of_now_after_those_of_before() -> None:
    row = watch._row("ab12", Usage(memory=1 << 20, pids=3, source="cgroup"), [0.0, 2.0, 1.0])
    assert row[:2] == ("ab12", "100%")
    assert row[2] == "▁█▄"
    assert row[3:6] == ("1.0MiB", "-", "3")


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_a_sandbox_that_is_not_well_is_a_1(
    ok: bool, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Sandbox:
        async def health(self) -> Health:
            return Health(ok=ok, state=State.RUNNING)

    @asynccontextmanager
    async def opened(**_given: object) -> AsyncIterator[Sandbox]:
        yield Sandbox()

    monkeypatch.setattr(ringfence, "open", opened)
    assert run(["health", "ab12", "--json"]) == code
    assert json.loads(capfd.readouterr().out)["ok"] is ok
