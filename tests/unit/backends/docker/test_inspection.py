"""What is read out of the Engine's description of a container."""

from pathlib import Path
from typing import Any

import pytest

from ringfence.backends.docker.inspection import Inspection

OURS = {
    "Type": "bind",
    "Source": "/state/docker/0123/abc",
    "Destination": "/.ringfence/run",
}


def seen(*mounts: dict[str, Any]) -> Inspection:
    return Inspection({"Mounts": mounts, "Config": {"Labels": {"ringfence.id": "abc"}}})


def test_the_directory_of_the_socket_is_the_bound_one() -> None:
    assert seen({**OURS, "Destination": "/x"}, OURS).run_directory == Path("/state/docker/0123/abc")
    assert seen().run_directory is None


@pytest.mark.parametrize(
    "mount",
    [
        {"Type": "tmpfs", "Source": ""},
        {"Type": "volume", "Source": "/var/lib/docker/volumes/abc/_data"},
        {"Source": ""},
        {"Source": "abc"},
        {"Source": "/home/me"},
    ],
)
def test_what_an_image_declares_there_is_not_ours_to_remove(mount: dict[str, Any]) -> None:
    assert seen({**OURS, **mount}).run_directory is None
