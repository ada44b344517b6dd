"""Pausing by the Engine, whose word lags behind what it did."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ringfence.backends.base import Record
from ringfence.backends.docker import pausing
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.pausing import Pausing
from ringfence.errors import (
    BackendUnavailableError,
    DeadlineExceededError,
    SandboxError,
    SandboxLostError,
    StateError,
)


class Lagging(Engine):
    """An Engine that gives these answers to an action, and what it then says of the state."""

    def __init__(self, *answers: tuple[type[SandboxError] | None, str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def post(self, op: str, *path: str, body: object = None, **query: object) -> Any:
        self.asked += 1
        refusal = self.answers[0][0]
        if refusal is not None:
            raise refusal("the Engine says no", op=op)

    async def get(self, op: str, *path: str, **query: object) -> Any:
        state = self.answers[0][1]
        if len(self.answers) > 1:
            del self.answers[0]
        return {"State": {"Status": state}}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pausing, "_WAIT_SECONDS", 0)


def pausing_on(engine: Engine) -> Pausing:
    return Pausing(engine, cast(Record, SimpleNamespace(id="a", native="b")), 0)


async def test_a_resume_that_an_engine_refuses_too_early_is_asked_for_again() -> None:
    """It answered 500 and said "running" of a container that it had just frozen."""
    engine = Lagging(
        (BackendUnavailableError, "running"), (StateError, "paused"), (None, "paused"),
        (BackendUnavailableError, "running"),
    )  # fmt: skip
    await pausing_on(engine).resume()
    assert not engine.answers[1:]
    assert engine.asked > 4


async def test_what_is_done_is_believed_at_once() -> None:
    engine = Lagging((None, "paused"))
    await pausing_on(engine).pause()
    assert engine.asked == 1


async def test_a_container_that_has_ended_is_not_waited_for() -> None:
    with pytest.raises(SandboxLostError):
        await pausing_on(Lagging((BackendUnavailableError, "exited"))).resume()


async def test_what_stays_unpaused_is_told_with_the_engine_s_words() -> None:
    with pytest.raises(DeadlineExceededError, match="not paused: the Engine says no"):
        await pausing_on(Lagging((BackendUnavailableError, "running"))).pause()
