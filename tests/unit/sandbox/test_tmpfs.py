"""Which tmpfs a file operation met, by the name of its path, and when one is full."""

import pytest

from ringfence.backends.base import Features
from ringfence.guest.control import Space
from ringfence.sandbox.tmpfs import is_used_up, limit_at, limits
from ringfence.spec import SandboxSpec

MIB = 1 << 20
SPEC = SandboxSpec(
    repository={"path": "/x", "mount_point": "/tmp/work"},
    mounts=[{"source": "/x", "destination": "/run/data"}],
    limits={"tmp": MIB, "shm": MIB, "run": MIB},
    security={"tmpfs": {"/scratch": MIB}},
)
SIZED = Features(limits=frozenset({"tmp", "shm", "run"}))


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/tmp/a/b", "tmp"),
        ("/tmp", "tmp"),
        ("//tmp/a", "tmp"),
        ("/dev/shm/x", "shm"),
        ("/run/x", "run"),
        ("/scratch/x", "tmpfs"),
        ("/tmp/../scratch/x", "tmpfs"),
        ("/tmp/work/x", None),
        ("/run/data/x", None),
        ("/tmpx", None),
        ("/", None),
        ("//", None),
        ("/workspace/x", None),
    ],
)
def test_a_path_is_in_the_nearest(path: str, limit: str | None) -> None:
    """What is mounted below one is another's."""
    assert limit_at(path, SPEC, limits(SPEC, SIZED)) == limit


def test_only_what_has_a_size_is_a_limit() -> None:
    assert limits(SPEC, Features(limits=frozenset())) == {}
    assert limits(SandboxSpec(limits={"shm": MIB}), SIZED) == {"/dev/shm": "shm"}


@pytest.mark.parametrize(
    ("space", "used_up"),
    [
        (Space(MIB, 0, 1024, 100), True),
        (Space(MIB, MIB // 2, 1024, 0), True),
        (Space(MIB, MIB // 2, 1024, 1), False),
        (Space(MIB, MIB // 2, 0, 0), False),
        (Space(0, 0, 0, 0), False),
    ],
)
def test_one_is_full_of_bytes_or_of_files(space: Space, *, used_up: bool) -> None:
    """Where no number is told there is none to meet."""
    assert is_used_up(space) is used_up
