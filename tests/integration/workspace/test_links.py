"""What a link in an image does to a repository that may be written."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import Repository
from ringfence.backends.docker import leading
from ringfence.errors import ImageError, PolicyDeniedError
from tests.conftest import require_docker
from tests.images import BUSYBOX, imported
from tests.unit.workspace.conftest import digest_of_tree

pytestmark = pytest.mark.docker
Built = Callable[[dict[str, Any]], str]


@pytest.fixture
def built() -> Iterator[Built]:
    """Makes an image of nothing but links, and files that are bytes, by name."""
    require_docker(BUSYBOX)
    with ExitStack() as images:
        yield lambda links: images.enter_context(imported(links))


@pytest.mark.parametrize(
    "links",
    [
        {"workspace": "/etc"},
        {"workspace": "/dev"},
        {"tmp": "/a", "a": "/workspace/new"},
        {".ringfence": "workspace/new"},
    ],
    ids=str,
)
async def test_none_leads_the_runtime_into_the_original(
    repository: Path, state_directory: Path, built: Built, links: dict[str, str]
) -> None:
    """It follows them: devices, and the files of the network, were put into the repository."""
    before, image = digest_of_tree(repository), built(links)
    for more in (
        {"repository": Repository(path=str(repository), mode="rw")},
        {"mounts": [{"source": repository, "destination": "/workspace", "read_only": False}]},
    ):
        with pytest.raises(PolicyDeniedError, match="is a link to"):
            await ringfence.open(backend="docker", image=image, **more)
        assert digest_of_tree(repository) == before
    await check_gone(image)


@pytest.mark.parametrize(
    ("links", "place"),
    [({"a": "b", "b": "a"}, "/a/x"), ({"a/file": b""}, "/a/file/x")],
    ids=["circles", "a file"],
)
async def test_where_nothing_can_be_mounted_the_image_is_said_to_be_why(
    repository: Path, state_directory: Path, built: Built, links: dict[str, Any], place: str
) -> None:
    """The Engine fails to look there, which another attempt does not mend."""
    image = built(links)
    mounts = [{"source": repository, "destination": place, "read_only": False}]
    with pytest.raises(ImageError, match="cannot be looked at in the image"):
        await ringfence.open(backend="docker", image=image, mounts=mounts)
    await check_gone(image)


@pytest.mark.parametrize("name", ["etc", "dev", "proc", "sys"])
async def test_in_place_of_what_is_the_runtimes_own_there_is_no_link(
    repository: Path, state_directory: Path, built: Built, name: str
) -> None:
    before, image = digest_of_tree(repository), built({name: "/workspace"})
    where = Repository(path=str(repository), mode="rw")
    async with ringfence.open(backend="docker", image=image, repository=where):
        pass
    assert digest_of_tree(repository) == before
    await check_gone(image)


async def check_gone(image: str) -> None:
    listed = ["docker", "ps", "-aq", "--filter", f"ancestor={image}"]
    assert subprocess.check_output(listed, timeout=60) == b""  # noqa: ASYNC221


async def test_an_image_is_looked_at_once_and_for_writing_alone(
    repository: Path, state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_docker(BUSYBOX)
    looked: list[object] = []
    real = leading.check

    async def check(*args: object) -> None:
        looked.append(args)
        await real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(leading, "check", check)
    for mode, looks in (("copy", 0), ("ro", 0), ("rw", 1), ("rw", 1)):
        where = Repository(path=str(repository), mode=mode)
        async with ringfence.open(backend="docker", image=BUSYBOX, repository=where):
            assert len(looked) == looks
