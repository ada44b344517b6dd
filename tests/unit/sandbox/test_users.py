"""Users that an image names for one command or file operation."""

import pytest

import ringfence
from ringfence.backends.mock import MockBackend

PASSWD = "root:x:0:0::/root:/bin/sh\nalice:x:1001:1001::/:/bin/sh\nbob:x:1002:1002::/:/bin/sh\n"
GROUP = "root:x:0:alice\nothers:x:50:alice,bob\n"


@pytest.fixture
def image() -> MockBackend:
    """Its /etc/group has alice in root's group."""
    return MockBackend(files={"/etc/passwd": PASSWD, "/etc/group": GROUP})


async def test_the_group_of_root_is_refused_as_root_is(image: MockBackend) -> None:
    """By the image's word too: for the user of the whole sandbox its receipt refuses it."""
    async with ringfence.open(backend=image) as sandbox:
        for asked in ("alice", 1001, "alice:50"):
            with pytest.raises(ringfence.PolicyDeniedError, match="group") as caught:
                await sandbox.exec(["true"], user=asked)
            assert caught.value.context["fields"] == ["user"]
            with pytest.raises(ringfence.PolicyDeniedError):
                await sandbox.files.stat("/", user=asked)
        assert (await sandbox.exec(["true"], user="bob")).ok


async def test_the_group_of_root_goes_with_what_may_be_root(image: MockBackend) -> None:
    """Where profile and ceiling give root, there is nothing in its group to keep from a command."""
    async with ringfence.open(backend=image, profile="permissive") as sandbox:
        assert (await sandbox.exec(["true"], user="root")).ok
        assert (await sandbox.exec(["true"], user="alice")).ok
    ceiling = ringfence.Ceiling(security={"root": False})
    async with ringfence.open(backend=image, profile="permissive", ceiling=ceiling) as sandbox:
        with pytest.raises(ringfence.PolicyDeniedError, match="ceiling"):
            await sandbox.exec(["true"], user="alice")
