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


@pytest.mark.parametrize(
    ("passwd", "group", "why"),
    [
        ("alice:x:0:0::/:/bin/sh\n", "", "root"),
        ("alice:x:1000:1000::/:/bin/sh\n", "root:x:0:alice\n", "in the group of root"),
        ("alice:x:65501:1000::/:/bin/sh\n", "", "reserved"),
        ("alice:x:1000:65502::/:/bin/sh\n", "", "reserved"),
    ],
)
async def test_a_default_user_that_became_another_is_refused_as_it_is_opened_again(
    passwd: str, group: str, why: str
) -> None:
    """As at the start: it would be root's session, and no command's user would be checked."""
    before = "alice:x:1000:1000::/:/bin/sh\n"
    mock = MockBackend(files={"/etc/passwd": before, "/etc/group": ""})
    spec = ringfence.SandboxSpec(user="alice", detached=True, lifetime=60)
    async with ringfence.open(spec, backend=mock) as sandbox:
        await sandbox.files.write("/etc/passwd", passwd)
        await sandbox.files.write("/etc/group", group)
    with pytest.raises(ringfence.PolicyDeniedError, match=why) as caught:
        await ringfence.open(id=sandbox.id, backend=mock)
    assert (caught.value.op, caught.value.context["fields"]) == ("open", ["user"])
    await mock._instances[sandbox.id].delete()


@pytest.mark.parametrize(
    ("user", "security"),
    [
        ("root", {}),
        ("alice", {"allow_degraded": ("user", "groups")}),
    ],
)
async def test_a_default_user_that_was_granted_is_had_again(
    user: str, security: dict[str, tuple[str, ...]]
) -> None:
    """Root by its name, and whom the image makes root where that is done without."""
    passwd = "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n"
    mock = MockBackend(files={"/etc/passwd": passwd, "/etc/group": "root:x:0:root,alice\n"})
    spec = ringfence.SandboxSpec(
        user=user, profile="permissive", security=security, detached=True, lifetime=60
    )
    async with ringfence.open(spec, backend=mock) as sandbox:
        if user != "root":
            await sandbox.files.write("/etc/passwd", passwd.replace("1000:1000", "0:1000"))
    async with ringfence.open(id=sandbox.id, backend=mock) as again:
        assert (await again.exec(["true"])).ok
    await mock._instances[sandbox.id].delete()
