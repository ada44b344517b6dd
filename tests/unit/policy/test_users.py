"""Whose name commands run in, where the request maps the owner of its repository."""

import pytest

from ringfence.policy.facts import Facts
from ringfence.policy.users import choose_user
from ringfence.spec import Repository, SandboxSpec


@pytest.mark.parametrize(
    ("owner", "expected"),
    [("5000", "5000:5000"), ("5000:6000", "5000:6000"), ("0:0", "1000"), ("65501", "1000")],
)
def test_commands_run_as_the_owner_that_the_request_maps_the_repository_to(
    owner: str, expected: str
) -> None:
    facts = Facts(memory=1 << 30, cpus=1, nofile=1024, repository_uid=1234, repository_gid=1234)
    request = SandboxSpec(repository=Repository(path=".", owner=owner))
    assert choose_user(request, facts) == expected
