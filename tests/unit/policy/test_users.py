"""Whose name commands run in: where the request maps the owner of its repository, and never in the
guest's."""

import pytest

import ringfence
from ringfence.backends.mock import MockBackend
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


PASSWD = "root:x:0:0::/root:/bin/sh\ncarol:x:1003:65501::/:/bin/sh\nbob:x:1002:1002::/:/bin/sh\n"
GROUP = "root:x:0:\nguest:x:65501:alice\nbeside:x:65502:dave\n"
MEMBERS = "alice:x:1001:1001::/:/bin/sh\ndave:x:1004:1004::/:/bin/sh\n"


@pytest.mark.parametrize("profile", ["strict", "permissive"])
async def test_a_command_is_in_no_group_of_the_guest(profile: str) -> None:
    """Neither by number nor by what an image says of its users, whatever the profile gives."""
    image = MockBackend(files={"/etc/passwd": PASSWD + MEMBERS, "/etc/group": GROUP})
    async with ringfence.open(backend=image, profile=profile) as sandbox:
        for asked in ("1005:65501", "bob:guest", "bob:65502", "carol", "alice", "dave", 65502):
            with pytest.raises(ringfence.NotFoundError, match="reserved for the guest"):
                await sandbox.exec(["true"], user=asked)
            with pytest.raises(ringfence.NotFoundError, match="reserved for the guest"):
                await sandbox.files.stat("/", user=asked)
        assert (await sandbox.exec(["true"], user="carol:1003")).ok
