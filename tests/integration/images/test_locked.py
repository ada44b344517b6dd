"""A sandbox is opened on the image that was locked, or not at all."""

from pathlib import Path

import pytest

import ringfence
from ringfence.backends.docker.stored import Stored
from ringfence.backends.docker.supply import Supply
from ringfence.cli.app import run
from ringfence.errors import ImageError, InvalidSpecError, PolicyDeniedError, UnsupportedError
from ringfence.images import Lock, Reference

from ...conftest import require_bwrap, require_docker
from .conftest import push

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGFENCE_STATE_DIR", str(tmp_path / "state"))


async def two(supply: Supply, name: str, rootfs: Path) -> tuple[Stored, Stored]:
    """Images `name`:one and `name`:two."""
    first = await supply.import_(
        rootfs, Reference.parse_familiar(f"{name}:one"), changes=["ENV A=1"]
    )
    second = await supply.import_(
        rootfs, Reference.parse_familiar(f"{name}:two"), changes=["ENV A=2"]
    )
    return first, second


async def digest_of(image: str, lock: Path) -> str | None:
    async with ringfence.open(backend="docker", image=image, lock=lock) as sandbox:
        return sandbox.info.image_digest


async def test_a_locked_tag_is_used_as_locked_or_names_both_digests(
    supply: Supply, registry: str, name: str, rootfs: Path, tmp_path: Path
) -> None:
    first, second = await two(supply, name, rootfs)
    tag = Reference.parse_familiar(f"{registry}/{name}:1")
    push(f"{name}:one", str(tag))
    stored, locked = await supply.pull(tag)
    lock = tmp_path / "ringfence.lock"
    lock.write_text(Lock().locked(tag, stored.pin(locked)).render())
    assert await digest_of(str(tag), lock) == first.id

    push(f"{name}:two", str(tag))
    _, moved = await supply.pull(tag)
    assert (await supply.inspect(str(tag))).id == second.id
    assert await digest_of(str(tag), lock) == first.id

    await supply.remove(f"{name}:one")
    await supply.remove(f"{tag.familiar_name}@{locked.digest}")
    with pytest.raises(PolicyDeniedError) as caught:
        await ringfence.open(backend="docker", image=str(tag), lock=lock)
    assert str(locked.digest) in str(caught.value)
    assert str(moved.digest) in str(caught.value)
    with pytest.raises(PolicyDeniedError, match=str(locked.digest)):
        await ringfence.open(backend="docker", image=str(moved), lock=lock)


async def test_an_image_of_no_registry_is_locked_by_its_id(
    supply: Supply, name: str, rootfs: Path, tmp_path: Path
) -> None:
    first, second = await two(supply, name, rootfs)
    tag = Reference.parse_familiar(f"{name}:now")
    await supply.import_(rootfs, tag, changes=["ENV A=2"])
    lock = tmp_path / "ringfence.lock"
    lock.write_text(Lock().locked(tag, first.pin(tag)).render())
    assert await digest_of(f"{name}:now", lock) == first.id
    assert await digest_of(str(second.id), lock) == second.id
    await supply.remove(f"{name}:one")
    with pytest.raises(PolicyDeniedError, match=str(first.id)):
        await ringfence.open(backend="docker", image=f"{name}:now", lock=lock)


async def test_what_is_not_locked_is_not_opened(
    supply: Supply, name: str, rootfs: Path, tmp_path: Path
) -> None:
    require_bwrap()
    await two(supply, name, rootfs)
    lock = tmp_path / "ringfence.lock"
    lock.write_text(Lock().render())
    with pytest.raises(ImageError, match="not in the lock file"):
        await ringfence.open(backend="docker", image=f"{name}:one", lock=lock)
    with pytest.raises(InvalidSpecError, match="none"):
        await ringfence.open(backend="docker", image=f"{name}:one", lock=tmp_path / "none")
    lock.write_text("{")
    with pytest.raises(InvalidSpecError, match="lock"):
        await ringfence.open(backend="docker", image=f"{name}:one", lock=lock)
    with pytest.raises(UnsupportedError, match="lock"):
        await ringfence.open(backend="process", lock=lock)


def test_the_option_locks_too(
    name: str, rootfs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_docker()
    lock = tmp_path / "ringfence.lock"
    lock.write_text(Lock().render())
    assert run(["image", "import", str(rootfs), "--tag", f"{name}:1"]) == 0
    assert run(["run", "--image", f"{name}:1", "--lock", str(lock), "--", "/none"]) == 125
    assert "not in the lock file" in capsys.readouterr().err
