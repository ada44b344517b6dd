"""An Engine that keeps images in containerd's store: an id is a manifest's digest there, and layers
are compressed."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from urllib.parse import unquote

import pytest
from aiohttp import web

from ringfence.backends.docker import images, rootfs
from ringfence.backends.docker.export import export
from ringfence.backends.docker.supply import Supply
from ringfence.digest import Descriptor, Digest
from ringfence.digest.store import Store
from ringfence.digest.store.manifest import LAYER, MANIFEST, put_image, read_document
from ringfence.errors import ImageError, ImageNotFoundError
from ringfence.images import Reference

from .fakes import VERSION, engine_that


def packed(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


TAR = packed({"who": b"x" * 100_000})
CONFIG = json.dumps(
    {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest.from_bytes(TAR)]},
    }
).encode()
ID = Digest.from_bytes(CONFIG)


class Daemon:
    """Knows images by what it made of them, and by their names."""

    def __init__(self) -> None:
        self.by_name: dict[str, str] = {}
        self.sends = b""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/version"):
            return web.json_response(VERSION)
        what = unquote(request.path.split("/images/")[1])
        if what == "load":
            self._load(await request.read())
            return web.json_response({})
        if what.endswith("/get"):
            return web.Response(body=self.sends)
        if what.endswith("/tag"):
            name = f"{request.query['repo']}:{request.query['tag']}"
            self.by_name[name] = what.removesuffix("/tag")
            return web.Response(status=201)
        what = what.removesuffix("/json")
        found = self.by_name.get(what, what if what in self.by_name.values() else None)
        return web.json_response({"Id": found}) if found else web.Response(status=404)

    def _load(self, data: bytes) -> None:
        """By the index of an OCI layout, else by a manifest that it makes itself."""
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            names = archive.getnames()
            kind = "index.json" if "index.json" in names else "manifest.json"
            document = json.load(archive.extractfile(kind) or io.BytesIO())
        if kind == "index.json":
            (entry,) = document["manifests"]
            name = (entry.get("annotations") or {}).get("io.containerd.image.name", "dangling")
            self.by_name[name.removeprefix("docker.io/library/")] = entry["digest"]
        else:
            made = str(Digest.from_bytes(b"made of " + data))
            self.by_name |= dict.fromkeys(document[0]["RepoTags"] or ("dangling",), made)


@pytest.fixture
def store(tmp_path: Path) -> tuple[Store, Descriptor]:
    """A store and the manifest of an image in it, called "latest"."""
    made = Store(tmp_path / "store")
    layer = Descriptor(LAYER, made.put(TAR), len(TAR))
    image = put_image(made, CONFIG, [layer])
    made.tag("latest", Descriptor(MANIFEST, image.digest, image.size))
    return made, image


async def test_a_layout_is_known_by_its_manifest(
    short: Path, store: tuple[Store, Descriptor]
) -> None:
    daemon = Daemon()
    async with engine_that(daemon.answer, short) as engine, Supply(engine) as supply:
        stored = await supply.import_(store[0].root, Reference.parse_familiar("mine:1"))
    assert stored.id == store[1].digest
    assert daemon.by_name == {"mine:1": store[1].digest}


@pytest.mark.parametrize("names", [["mine:1"], []])
async def test_an_archive_is_found_by_its_name_alone(
    short: Path, tmp_path: Path, names: list[str]
) -> None:
    listing = [{"Config": "c.json", "RepoTags": names, "Layers": ["l.tar"]}]
    path = tmp_path / "archive"
    path.write_bytes(
        packed({"c.json": CONFIG, "l.tar": TAR, "manifest.json": json.dumps(listing).encode()})
    )
    daemon = Daemon()
    async with engine_that(daemon.answer, short) as engine, Supply(engine) as supply:
        if names:
            assert (await supply.import_(path)).id == daemon.by_name["mine:1"] != ID
        else:
            with pytest.raises(ImageError, match="no name"):
                await supply.import_(path)


async def test_a_snapshot_s_image_is_found_by_its_configuration(
    short: Path, store: tuple[Store, Descriptor]
) -> None:
    """So that one snapshot is one image on every Engine."""
    daemon = Daemon()
    async with engine_that(daemon.answer, short) as engine:
        with pytest.raises(ImageNotFoundError):
            await images.look_up(engine, str(ID))
        for _ in range(2):
            assert await rootfs.load(engine, store[0].root, store[1]) == store[1].digest
        found = await images.look_up(engine, str(ID))
    assert found.facts.digest == store[1].digest


@pytest.mark.parametrize("content", [TAR, b"", b"other"], ids=["whole", "empty", "other"])
async def test_layers_are_kept_as_their_configuration_names_them(
    short: Path, tmp_path: Path, content: bytes
) -> None:
    """So that an export is the same from every Engine; what is something else is refused."""
    blob = gzip.compress(content)
    name = f"blobs/sha256/{Digest.from_bytes(blob).encoded}"
    listing = [{"Config": "c", "RepoTags": None, "Layers": [name]}]
    daemon = Daemon()
    daemon.sends = packed({"c": CONFIG, name: blob, "manifest.json": json.dumps(listing).encode()})
    store = Store(tmp_path / "store")
    async with engine_that(daemon.answer, short) as engine:
        if content != TAR:
            with pytest.raises(ImageError, match="cannot be used"):
                await export(engine, "it", store, seconds=60, made=[])
            return
        image = await export(engine, "it", store, seconds=60, made=[])
    document = read_document(store, image.digest)
    assert document["config"]["digest"] == ID
    assert [layer["digest"] for layer in document["layers"]] == [Digest.from_bytes(TAR)]


async def test_a_layer_that_is_cut_short_is_an_error_of_ours(short: Path, tmp_path: Path) -> None:
    listing = [{"Config": "c", "RepoTags": None, "Layers": ["l"]}]
    daemon = Daemon()
    daemon.sends = packed(
        {
            "c": CONFIG,
            "l": gzip.compress(TAR)[:-20],
            "manifest.json": json.dumps(listing).encode(),
        }
    )
    async with engine_that(daemon.answer, short) as engine:
        with pytest.raises(ImageError, match="cannot be used"):
            await export(engine, "it", Store(tmp_path / "s"), seconds=60, made=[])


async def test_a_layer_that_zstd_compressed_is_an_error_that_says_what_to_do(
    short: Path, tmp_path: Path
) -> None:
    """The header is zstd's own; that its sum is another one would be no word of that."""
    listing = [{"Config": "c", "RepoTags": None, "Layers": ["l"]}]
    daemon = Daemon()
    daemon.sends = packed(
        {
            "c": CONFIG,
            "l": b"\x28\xb5\x2f\xfd\x04\x00\x01\x00\x00\x99\xe9\xd8\x51",  # of no bytes at all
            "manifest.json": json.dumps(listing).encode(),
        }
    )
    store = Store(tmp_path / "store")
    async with engine_that(daemon.answer, short) as engine:
        with pytest.raises(ImageError, match=r"layer l .*zstd.*: .*compression=gzip") as caught:
            await export(engine, "it", store, seconds=60, made=[])
    assert str(caught.value).startswith("export: ")
    assert list(store.walk()) == []
