"""From the daemon into a content store, and from there into sandboxes of either backend."""

import asyncio
import json
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest

import ringfence
from ringfence.backends.docker import export
from ringfence.backends.docker.supply import Supply
from ringfence.cli.app import run
from ringfence.digest import Digest
from ringfence.digest.store import Store
from ringfence.digest.store.manifest import read_document
from ringfence.errors import ImageError, ImageNotFoundError, ResourceExhaustedError
from ringfence.images import Reference

from ...conftest import missing, on_process, require_bwrap, require_docker
from ...images import BUSYBOX

pytestmark = pytest.mark.docker


async def built(supply: Supply, name: str, directory: Path) -> Digest:
    """Busybox with a file of its own; the id."""
    require_docker(BUSYBOX)
    (directory / "Dockerfile").write_text(
        f"FROM {BUSYBOX}\nENV MINE=yes\nCOPY who /who\nCOPY who /twice/who\n"
    )
    (directory / "who").write_text(secrets.token_hex(8))
    stored = await supply.build(directory, Reference.parse_familiar(f"{name}:built"))
    return stored.id


async def by_manifest(supply: Supply) -> bool:
    """Whether the Engine knows images by their manifests: it keeps them in containerd's store."""
    about = await supply._engine.get("info", "info")
    return "io.containerd.snapshotter.v1" in str(about["DriverStatus"])


async def test_an_image_goes_into_a_store_and_into_sandboxes_of_both_backends(
    supply: Supply, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_bwrap()
    monkeypatch.setenv("RINGFENCE_STATE_DIR", str(tmp_path / "state"))
    context = tmp_path / "context"
    context.mkdir()
    image = await built(supply, name, context)
    store = Store(tmp_path / "store")
    digest = await supply.export(f"{name}:built", store)
    config = read_document(store, digest)["config"]["digest"]
    if not await by_manifest(supply):
        assert config == image
    assert store.tags()[f"{name}:built"].digest == digest
    assert store.gc(grace=0).removed == ()
    assert list(store.scrub()) == []
    before = len(list(store.walk()))
    assert await supply.export(f"{name}:built", store, tag="again") == digest
    assert len(list(store.walk())) == before

    await supply.remove(f"{name}:built")
    for which in (f"{name}:built", digest):
        again = await supply.import_(
            store.root, Reference.parse_familiar(f"{name}:back"), name=which
        )
        assert again.id == (digest if await by_manifest(supply) else image)
    expected = (context / "who").read_bytes()
    for where in (
        {"backend": "docker", "image": f"{name}:back"},
        {**on_process(), "image": f"{store.root}:{name}:built"},
        {**on_process(), "image": f"{store.root}:{digest}"},
    ):
        done = await ringfence.run(
            ["sh", "-c", "test $MINE = yes && cat /who"], profile="permissive", **where
        )
        assert done.result.stdout == expected, done.result.stderr

    with pytest.raises(ImageNotFoundError):
        await supply.export(f"{name}:none", store)


def test_the_verb_exports_what_skopeo_reads(
    name: str, rootfs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_docker()
    if shutil.which("skopeo") is None:
        missing("skopeo is not installed: apt-get install skopeo")
    root = tmp_path / "store"
    assert run(["image", "import", str(rootfs), "--tag", f"{name}:1"]) == 0
    image = capsys.readouterr().out.strip()
    assert run(["image", "export", f"{name}:1", "--root", str(root)]) == 0
    digest = capsys.readouterr().out.strip()
    said = subprocess.run(
        ["skopeo", "inspect", f"oci:{root}:{name}:1"], check=True, capture_output=True, timeout=60
    ).stdout
    assert json.loads(said)["Digest"] == digest
    assert run(["image", "export", image, "--root", str(root), "--tag", "by-id"]) == 0
    assert capsys.readouterr().out.strip() == digest


async def test_an_export_that_fails_leaves_what_was_there_and_nothing_else(
    supply: Supply, name: str, tmp_path: Path
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    await built(supply, name, context)
    whole = Store(tmp_path / "whole")
    await supply.export(f"{name}:built", whole)
    store = Store(tmp_path / "store", quota=whole.usage() - 1)
    layers = [blob for blob in whole.walk() if blob.size > 100_000]
    with pytest.raises(ResourceExhaustedError) as caught:
        await supply.export(f"{name}:built", store)
    assert "store gc" not in caught.value.message
    assert list(store.walk()) == []
    there = store.put(whole.read(layers[0].digest))
    with pytest.raises(ResourceExhaustedError):
        await supply.export(f"{name}:built", store)
    assert [blob.digest for blob in store.walk()] == [there]
    store.delete(there)
    with store.composing(), pytest.raises(ResourceExhaustedError, match="store gc"):
        await supply.export(f"{name}:built", store)
    assert layers[0].digest in store
    store.gc(grace=0)
    assert list(store.walk()) == []


async def test_a_cancelled_export_ends_before_its_cancellation_and_leaves_nothing(
    supply: Supply, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    await built(supply, name, context)
    store = Store(tmp_path / "store")
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(supply.export(f"{name}:built", store))
    real = export._Source.read
    reads = 0

    def read(source: export._Source, size: int = -1, /) -> bytes:
        nonlocal reads
        reads += 1
        if reads == 2:
            loop.call_soon_threadsafe(task.cancel)
            assert source._ended.wait(60)
        return real(source, size)

    monkeypatch.setattr(export._Source, "read", read)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reads == 2
    assert list(store.walk()) == []
    assert store.ingests() == {}


async def test_a_layer_that_is_not_what_the_configuration_says_is_refused(
    supply: Supply, name: str, rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await supply.import_(rootfs, Reference.parse_familiar(f"{name}:1"))
    forged = Digest.from_bytes(b"forged")
    real = json.loads

    def loads(data: bytes) -> object:
        found = real(data)
        if isinstance(found, dict) and "rootfs" in found:
            found["rootfs"]["diff_ids"] = [forged]
        return found

    monkeypatch.setattr("ringfence.backends.docker.export.json.loads", loads)
    store = Store(tmp_path / "store")
    with pytest.raises(ImageError, match="expected"):
        await supply.export(f"{name}:1", store)
    assert store.tags() == {}
    assert store.ingests() == {}
