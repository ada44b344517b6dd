"""An error that names what cannot be enforced, once for each reason, and how to do without."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringfence.backends.process import refusals
from ringfence.backends.refusing import refuse_disks, refuse_what
from ringfence.errors import PolicyDeniedError, UnsupportedError
from ringfence.spec import SandboxSpec, Security

PROBLEMS = (("memory", "no cgroups"), ("pids", "no cgroups"), ("apparmor", "not in this kernel"))


def test_controls_with_one_reason_are_named_together_with_how_to_do_without() -> None:
    with pytest.raises(UnsupportedError) as caught:
        refuse_what("it", SandboxSpec(), PROBLEMS)
    assert str(caught.value) == (
        "create: it cannot enforce memory, pids: no cgroups; apparmor: not in this kernel;"
        " to do without: --allow-degraded memory,pids (security.allow_degraded)"
    )
    assert caught.value.context["controls"] == ["memory", "pids", "apparmor"]


def test_what_may_be_missing_is_let_pass() -> None:
    some = SandboxSpec(security=Security(allow_degraded=("memory", "pids")))
    with pytest.raises(UnsupportedError, match=r"^create: it cannot enforce apparmor: [^;]*$"):
        refuse_what("it", some, PROBLEMS)
    all_of_it = SandboxSpec(security=Security(allow_degraded=("memory", "pids", "apparmor")))
    refuse_what("it", all_of_it, PROBLEMS)


def refuse_as_process(spec: SandboxSpec) -> None:
    machine: Any = None
    refusals.refuse(spec, machine)


@pytest.mark.parametrize("refuse", [refuse_disks, refuse_as_process])
@pytest.mark.parametrize(
    ("there", "leads", "told"),
    [
        ("/dev/mine", "/dev/mine", "/dev/mine is a disk"),
        ("/dev/sda", "/dev/sda", "/dev/mine is a disk"),
        ("/dev/mine/c0d0", "/dev/mine", "/dev/mine is a disk, or has one"),
        ("/dev/sda", "/etc/passwd", "/dev/mine is no device"),
        ("/dev/sda", "/", "/dev/mine is no device"),
    ],
)
def test_no_disk_of_the_host_is_given_by_whatever_name(
    monkeypatch: pytest.MonkeyPatch,
    refuse: Callable[[SandboxSpec], None],
    there: str,
    leads: str,
    told: str,
) -> None:
    """A name can be anything, a link, and a directory's: what is there is looked at."""
    monkeypatch.setattr(Path, "is_block_device", lambda path: str(path) == there)
    monkeypatch.setattr(Path, "resolve", lambda path: Path(leads))
    monkeypatch.setattr(Path, "rglob", lambda path, _: [path / "c0d0"])
    spec = SandboxSpec(security=Security(devices=("/dev/mine",)))
    with pytest.raises(PolicyDeniedError, match=told):
        refuse(spec)


def test_what_is_no_disk_is_given() -> None:
    refuse_disks(SandboxSpec(security=Security(devices=("/dev/null", "/dev/net/tun", "/dev/none"))))
