"""What is asked for explicitly and cannot be had is refused, unless it is done without by name."""

from pathlib import Path

import pytest

from ringfence.backends.base import Features
from ringfence.errors import UnsupportedError
from ringfence.sandbox import needs
from ringfence.spec import SandboxSpec

ORDINARY = Features(mounts=True, usage=False, missing="no cgroup is delegated")


def asking(*without: str, **limits: object) -> SandboxSpec:
    return SandboxSpec(limits=limits, security={"allow_degraded": without})


def test_a_limit_that_was_asked_for_is_done_without_by_name() -> None:
    """As the profile's own: one spec does where cgroups are and where none are."""
    needs.check(asking("memory", "pids", memory="64m", pids=8), ORDINARY)
    with pytest.raises(UnsupportedError) as caught:
        needs.check(asking("pids", memory="64m", pids=8), ORDINARY)
    assert caught.value.context["fields"] == ["limits.memory"]


def test_the_refusal_of_a_limit_says_how_to_do_without() -> None:
    with pytest.raises(UnsupportedError) as caught:
        needs.check(asking(memory="64m", pids=8), ORDINARY)
    assert "(no cgroup is delegated)" in str(caught.value)
    assert "--allow-degraded memory,pids (security.allow_degraded)" in str(caught.value)


def test_a_repository_is_refused_with_the_reason_where_files_are_not_shared(tmp_path: Path) -> None:
    elsewhere = Features(mounts=False, missing="no cgroup is delegated")
    spec = SandboxSpec(repository={"path": str(tmp_path)})
    with pytest.raises(UnsupportedError, match=r"repository \(it does not see .* upload") as caught:
        needs.check(spec, elsewhere)
    assert "cgroup" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "without"),
    [("cpu_time", 5, ()), ("disk", "64m", ("disk",)), ("network_rate", 1000, ())],
)
def test_what_no_receipt_shows_the_lack_of_is_refused_whatever_is_named(
    name: str, value: object, without: tuple[str, ...]
) -> None:
    """Processor time and rates are counted by the holder, and cannot be named; a disk is watched
    where it can be."""
    with pytest.raises(UnsupportedError) as caught:
        needs.check(asking(*without, **{name: value}), ORDINARY)
    assert caught.value.context["fields"] == [f"limits.{name}"]
    assert "allow-degraded" not in str(caught.value)
