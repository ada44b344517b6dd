"""Images from registries that keep their word and from one that does not; files; builds."""

import asyncio
import json
import secrets
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from ringfence.backends.docker import DockerBackend
from ringfence.backends.docker.progress import Progress
from ringfence.backends.docker.supply import Supply
from ringfence.digest import Descriptor, Digest
from ringfence.digest.store import Store
from ringfence.errors import ImageError, ImageNotFoundError, PolicyDeniedError, SandboxError
from ringfence.images import Lock, Reference
from ringfence.spec import SandboxSpec

from ...conftest import missing, require_docker
from ...images import BUSYBOX
from .conftest import Liar, push, tar_of

pytestmark = pytest.mark.docker


def reference(text: str) -> Reference:
    return Reference.parse_familiar(text)


async def gone(supply: Supply, name: str) -> bool:
    try:
        await supply.inspect(name)
    except ImageNotFoundError:
        return True
    return False


async def test_a_tag_is_pulled_pinned_and_found_changed(
    supply: Supply, registry: str, name: str, rootfs: Path
) -> None:
    first = await supply.import_(rootfs, reference(f"{name}:one"), changes=["ENV A=1"])
    second = await supply.import_(rootfs, reference(f"{name}:two"), changes=["ENV A=2"])
    assert first.id != second.id
    tag = reference(f"{registry}/{name}:1")
    push(f"{name}:one", str(tag))
    seen: list[Progress] = []
    stored, pinned = await supply.pull(tag, tell=seen.append)
    assert stored.id == first.id
    assert str(tag) in stored.tags
    assert pinned.digest in stored.manifests(tag)
    assert (await supply.inspect(str(pinned))).id == first.id
    assert seen
    lock = Lock().locked(tag, stored.pin(pinned))
    lock.check(tag, stored.manifests(tag), stored.id)

    push(f"{name}:two", str(tag))
    moved, now = await supply.pull(tag)
    assert moved.id == second.id
    with pytest.raises(PolicyDeniedError) as caught:
        lock.check(tag, moved.manifests(tag), moved.id)
    assert str(pinned.digest) in str(caught.value)
    assert str(now.digest) in str(caught.value)
    await supply.remove(str(tag))
    again, exact = await supply.pull(lock.resolve(tag))
    assert (again.id, exact.digest) == (first.id, pinned.digest)
    backend = DockerBackend()
    try:
        facts = await backend.facts(SandboxSpec.parse({"image": str(exact)}))
        assert facts.image is not None
        assert facts.image.digest == first.id
        with pytest.raises(ImageNotFoundError):
            await backend.facts(SandboxSpec.parse({"image": f"{tag}@sha256:{'1' * 64}"}))
    finally:
        await backend.aclose()


async def test_a_wrong_digest_a_missing_tag_and_a_missing_registry_are_errors(
    supply: Supply, registry: str, name: str, rootfs: Path
) -> None:
    await supply.import_(rootfs, reference(f"{name}:one"))
    push(f"{name}:one", f"{registry}/{name}:1")
    wrong = f"{registry}/{name}@sha256:{'0' * 64}"
    with pytest.raises(ImageNotFoundError):
        await supply.pull(reference(wrong))
    for text in (f"{registry}/{name}:nosuch", f"{registry}/{name}/nosuch:1"):
        with pytest.raises(ImageError):
            await supply.pull(reference(text))
        assert await gone(supply, text)
    with pytest.raises(SandboxError):
        await supply.pull(reference(f"127.0.0.1:1/{name}:1"))


async def test_a_registry_that_lies_about_a_digest_is_found_out(
    supply: Supply, liar: Liar, name: str
) -> None:
    promised = liar.image(secrets.token_bytes(32))
    other = liar.image(secrets.token_bytes(32))
    liar.manifests[promised] = liar.manifests[other]
    liar.announced = promised
    tag = reference(f"{liar.address}/{name}:latest")
    with pytest.raises(ImageError):
        await supply.pull(tag)
    with pytest.raises(ImageError):
        await supply.pull(tag.pin(promised))
    assert await gone(supply, str(tag))
    liar.announced = None
    stored, pinned = await supply.pull(tag)
    assert pinned.digest == other
    assert str(tag) in stored.tags


async def test_a_layer_that_is_not_what_the_manifest_says_is_refused(
    supply: Supply, liar: Liar, name: str
) -> None:
    liar.image(secrets.token_bytes(32))
    manifest = json.loads(liar.manifests["latest"])
    layer = manifest["layers"][0]["digest"]
    liar.blobs[layer] = tar_of("who", secrets.token_bytes(32))
    with pytest.raises(ImageError):
        await supply.pull(reference(f"{liar.address}/{name}:latest"))
    assert await gone(supply, f"{liar.address}/{name}:latest")


async def test_an_interrupted_pull_leaves_no_image_and_can_be_repeated(
    supply: Supply, liar: Liar, name: str
) -> None:
    liar.image(secrets.token_bytes(300_000))
    liar.stall = 1000
    tag = reference(f"{liar.address}/{name}:latest")
    pull = asyncio.ensure_future(supply.pull(tag))
    assert await asyncio.to_thread(liar.stalled.wait, 60)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    assert await gone(supply, str(tag))
    liar.stall = None
    liar.go_on.set()
    stored, _ = await supply.pull(tag)
    assert str(tag) in stored.tags


def layout_of(directory: Path, content: bytes) -> tuple[Store, Digest]:
    """An OCI layout with the image "latest" of one layer; its configuration's digest."""
    store = Store(directory)
    layer = tar_of("who", content)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["A=1"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest.from_bytes(layer)]},
    }
    parts = []
    for kind, data in (
        ("application/vnd.oci.image.config.v1+json", json.dumps(config).encode()),
        ("application/vnd.oci.image.layer.v1.tar", layer),
    ):
        parts.append(Descriptor(kind, store.put(data), len(data)).to_dict())
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": parts[0], "layers": parts[1:]}
    data = json.dumps(manifest).encode()
    store.tag("latest", Descriptor(kind, store.put(data), len(data)))
    return store, Digest(parts[0]["digest"])


async def test_a_layout_is_imported_verified_and_keeps_its_id(
    supply: Supply, name: str, tmp_path: Path
) -> None:
    store, config = layout_of(tmp_path / "layout", secrets.token_bytes(100_000))
    stored = await supply.import_(store.root, reference(f"{name}:layout"), name="latest")
    # In containerd's image store it is the manifest's digest.
    assert stored.id in (config, store.tags()["latest"].digest)
    assert stored.tags == (f"{name}:layout",)
    packed = tmp_path / "layout.tar"
    with tarfile.open(packed, "w") as archive:
        archive.add(store.root, ".")
    assert (await supply.import_(packed, reference(f"{name}:packed"))).id == stored.id
    with pytest.raises(ImageError, match="0 instead of one image called 'other'"):
        await supply.import_(store.root, name="other")
    damaged = max(store.walk(), key=lambda blob: blob.size).digest
    path = store.blob_path(damaged)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ImageError, match="damaged"):
        await supply.import_(store.root, reference(f"{name}:damaged"))
    assert await gone(supply, f"{name}:damaged")


async def test_archives_and_directories_are_imported_for_what_they_are(
    supply: Supply, name: str, rootfs: Path, tmp_path: Path
) -> None:
    stored = await supply.import_(
        rootfs, reference(f"{name}:tar"), changes=['CMD ["/x"]', "LABEL a=b"]
    )
    assert stored.labels == {"a": "b"}
    tree = await supply.import_(rootfs.with_suffix(""), reference(f"{name}:tree"))
    assert tree.tags == (f"{name}:tree",)
    saved = tmp_path / "saved.tar"
    await asyncio.to_thread(
        subprocess.run, ["docker", "save", "-o", saved, f"{name}:tar"], check=True, timeout=60
    )
    await supply.remove(f"{name}:tar")
    loaded = await supply.import_(saved, reference(f"{name}:again"))
    assert loaded.id == stored.id
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"not a tar" * 1000)
    with pytest.raises(ImageError, match="no tar"):
        await supply.import_(broken)


async def test_a_build_names_its_result_and_has_no_network(
    supply: Supply, name: str, tmp_path: Path
) -> None:
    require_docker(BUSYBOX)
    (tmp_path / "Dockerfile").write_text(
        "FROM ringfence-test/busybox\nARG WHO=nobody\nCOPY . /context\n"
        "RUN test ! -e /context/secret && test ! -d /sys/class/net/eth0 && echo built for $WHO\n"
    )
    (tmp_path / ".dockerignore").write_text("sec*\n")
    (tmp_path / "secret").write_text("x")
    seen: list[Progress] = []
    stored = await supply.build(
        tmp_path,
        reference(f"{name}:built"),
        arguments={"WHO": name},  # a step that was built before is not run again
        labels={"ringfence.test": name},
        tell=seen.append,
    )
    assert f"built for {name}\n" in "".join(step.output for step in seen)
    assert (await supply.inspect(f"{name}:built")).id == stored.id
    assert [image.id for image in await supply.images({"ringfence.test": name})] == [stored.id]
    await supply.prune({"ringfence.test": name})
    assert not await gone(supply, stored.id)
    assert await supply.prune({"ringfence.test": name}, tagged=True)
    assert await gone(supply, stored.id)
    (tmp_path / "Dockerfile").write_text("FROM ringfence-test/busybox\nRUN false\n")
    with pytest.raises(ImageError, match="build"):
        await supply.build(tmp_path)


def test_skopeo_and_umoci_read_what_the_store_writes(tmp_path: Path) -> None:
    for tool in ("skopeo", "umoci"):
        if shutil.which(tool) is None:
            missing(f"{tool} is not installed: apt-get install {tool}")
    content = secrets.token_bytes(1000)
    store, config = layout_of(tmp_path / "layout", content)

    def output(*command: str | Path) -> str:
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    assert (
        json.loads(output("skopeo", "inspect", "--config", f"oci:{store.root}:latest"))["os"]
        == "linux"
    )
    raw = output("skopeo", "inspect", "--raw", f"oci:{store.root}:latest")
    assert json.loads(raw)["config"]["digest"] == config
    assert output("umoci", "ls", "--layout", store.root).split() == ["latest"]
    output("umoci", "unpack", "--rootless", "--image", f"{store.root}:latest", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "rootfs" / "who").read_bytes() == content
    output("skopeo", "copy", f"oci:{store.root}:latest", f"oci:{tmp_path / 'copied'}:other")
    copied = Store(tmp_path / "copied")
    assert list(copied.tags()) == ["other"]
    assert list(copied.scrub()) == []
