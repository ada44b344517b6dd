"""An error that names what cannot be enforced, once for each reason, and how to do without."""

import pytest

from ringfence.backends.refusing import refuse_what
from ringfence.errors import UnsupportedError
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
