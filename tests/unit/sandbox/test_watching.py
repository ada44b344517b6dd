"""A watched disk: writers are killed above the limit, and whoever removes files is not."""

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from ringfence.backends.base import Features
from ringfence.backends.sized import is_watched
from ringfence.errors import BackendUnavailableError, SandboxLostError, UnsupportedError
from ringfence.events import EventBus
from ringfence.sandbox import needs, watching
from ringfence.sandbox.life import Life
from ringfence.spec import Limits, SandboxSpec, Security, State

WATCHES = Features(watched=frozenset({"disk"}), mounts=True, detached=True)
LIMIT = 100


class Looked:
    """Answers what is written, one number or error a look; then it is gone."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.kills_at: list[int] = []

    async def written(self) -> int:
        if not self.answers:
            raise SandboxLostError("it is gone", op="written")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.last = answer
        return answer

    async def kill_all(self) -> int:
        self.kills_at.append(self.last)
        return 1


async def watched(looked: Looked, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.0)
    bus = EventBus()
    told: list[dict[str, Any]] = []
    bus.subscribe(lambda event: told.append(event.to_dict()))
    life: Any = SimpleNamespace(
        id="it", ended=False, state=State.RUNNING, bus=bus, session=looked, instance=looked
    )
    life.hit = partial(Life.hit, life)
    await asyncio.wait_for(watching.watch_disk(life, looked, LIMIT), 20)
    return told


async def test_writers_are_killed_while_it_grows_above_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = Looked(50, 100, 150, 155, 155, 120, 130, 130, 60, 101, 101)
    told = await watched(looked, monkeypatch)
    assert looked.kills_at == [150, 130, 101]
    assert [event["counters"]["used"] for event in told] == [150, 130, 101]
    assert {(event["event"], event["limit"]) for event in told} == {("LimitHit", "disk")}


async def test_a_look_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = Looked(BackendUnavailableError("busy", op="written"), 150, 150)
    assert len(await watched(looked, monkeypatch)) == 1


def spec(**more: Any) -> SandboxSpec:
    security = {"read_only_root": False, "allow_degraded": ("disk",), **more.pop("security", {})}
    return SandboxSpec(image="x", limits={"disk": 2**24}, security=security, **more)


def test_it_is_watched_only_where_that_was_allowed_and_can_be_measured() -> None:
    assert is_watched(spec(), WATCHES)
    for more in (
        {"security": {"allow_degraded": ()}},
        {"security": {"read_only_root": True}},
        {"security": {"runtime": "runsc"}},
        {"detached": True, "lifetime": 60},
        {"mounts": [{"source": "/data", "destination": "/data", "read_only": False}]},
        {"repository": {"path": "/data", "mode": "rw"}},
    ):
        assert not is_watched(spec(**more), WATCHES), more
    assert not is_watched(spec(), Features(limits=frozenset({"disk"}), watched=WATCHES.watched))


def test_what_nobody_can_watch_is_refused() -> None:
    needs.check(spec(), WATCHES)
    for more in ({"detached": True, "lifetime": 60}, {"security": {"allow_degraded": ()}}):
        with pytest.raises(UnsupportedError, match="disk"):
            needs.check(spec(**more), WATCHES)
    with pytest.raises(UnsupportedError, match="disk"):
        needs.check(spec(), Features(mounts=True))


def test_a_request_for_another_one_asks_for_nothing_that_cannot_be() -> None:
    limits = {"memory": "1g", "timeout": 5, "ulimits": {"nofile": 10}}
    again = needs.like(SandboxSpec(user="1000", limits=limits), Features())
    assert again.user is None
    assert again.limits == Limits(timeout=5)
    needs.check(again, Features(networks=frozenset({"none"})))


def test_processor_time_needs_somebody_who_sees_it() -> None:
    """Of a detached sandbox that is its guest, which needs a counter that it can be handed."""
    attached = SandboxSpec(image="x", limits={"cpu_time": 5})
    detached = SandboxSpec(image="x", limits={"cpu_time": 5}, detached=True, lifetime=60)
    gvisor = detached.model_copy(update={"security": Security(runtime="runsc")})
    able = Features(usage=True, cpu_counter=True, detached=True, runtimes=frozenset({"runsc"}))
    unable = Features(usage=True, detached=True)
    blind = Features(usage=False, detached=True)
    for spec, features, word in (
        (attached, able, None),
        (attached, unable, None),
        (attached, blind, "measure"),
        (detached, able, None),
        (detached, unable, "socket"),
        (gvisor, able, "gVisor"),
    ):
        for check in (needs.check, needs.check_granted):
            if word is None:
                check(spec, features)
                continue
            with pytest.raises(UnsupportedError, match=f"cpu_time: .*{word}"):
                check(spec, features)
