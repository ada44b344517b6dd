"""The profiles in words: `ringfence policy`."""

import json

import pytest
from typer.testing import CliRunner

from ringfence.cli.policy import group
from ringfence.errors import InvalidSpecError
from ringfence.policy import PROFILES, explain
from ringfence.policy.seccomp.groups import GROUPS


@pytest.mark.parametrize("name", PROFILES)
def test_every_control_has_a_value_and_a_sentence(name: str) -> None:
    rows = explain.rows(name)
    assert {row.control for row in rows} <= set(explain.WHY)
    for row in rows:
        assert row.value
        assert row.why.endswith(".")


def test_the_differences_are_those_of_the_rows() -> None:
    assert explain.difference("strict", "strict") == ()
    found = {one.control: (one.left, one.right) for one in explain.difference("strict", "standard")}
    assert found["memory"] == ("512 MiB", "2 GiB")
    assert found["seccomp"] == ("strict", "standard")
    assert "no_new_privileges" not in found


def test_every_group_that_is_refused_is_told_with_its_reason() -> None:
    told = {row.control: row.why for row in explain.refused("strict")}
    for refused in GROUPS:
        assert told[refused.name] == refused.reason
    assert "tracing" not in {row.control for row in explain.refused("permissive")}


def test_an_unknown_profile_gets_its_nearest_name() -> None:
    with pytest.raises(InvalidSpecError, match="'standard'"):
        explain.rows("standart")


def test_the_verbs_print_it() -> None:
    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(group, arguments)
        assert done.exit_code == code, done.output
        return done.output

    assert json.loads(run("show", "strict", "--json"))["controls"]["pids"] == "256"
    assert "512 MiB" in run("diff", "strict", "permissive", code=1)
    assert explain.WHY["memory"] in run("explain", "standard")
    made = json.loads(run("seccomp", "strict", "--arch", "aarch64"))
    assert made["architectures"] == ["SCMP_ARCH_AARCH64"]
