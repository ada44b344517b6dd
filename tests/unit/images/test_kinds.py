"""A document of a layout is an image's manifest or an index, never what its reader takes it for."""

import json
from pathlib import Path
from typing import Any

import pytest

from ringfence.digest import Descriptor
from ringfence.digest.store import Store
from ringfence.errors import ImageError
from ringfence.images import layouts

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
OTHER = "application/x-other"


def put(store: Store, kind: str, document: dict[str, Any]) -> Descriptor:
    data = json.dumps(document).encode()
    return Descriptor(kind, store.put(data), len(data))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def image(store: Store) -> dict[str, Any]:
    return {"config": put(store, OTHER, {"of": "the image"}).to_dict(), "layers": []}


@pytest.fixture
def index(store: Store) -> dict[str, Any]:
    config = put(store, OTHER, {"of": "the index"}).to_dict()
    entry = put(store, MANIFEST, {"config": config, "layers": []}).to_dict()
    return {"manifests": [{**entry, "platform": {"os": "linux", "architecture": "amd64"}}]}


@pytest.mark.parametrize("kind", [MANIFEST, INDEX, DOCKER, OTHER])
def test_what_is_a_manifest_and_an_index_at_once_is_refused(
    store: Store, image: dict[str, Any], index: dict[str, Any], kind: str
) -> None:
    """One digest stood for two images, by who read it (CVE-2021-41190)."""
    for part in (image, {"layers": []}, {"config": image["config"]}):
        store.tag("both", put(store, kind, {**part, **index}))
        with pytest.raises(ImageError, match="is not clear"):
            layouts.find(store.root, "both")


def test_what_says_that_it_is_the_other_kind_is_refused(
    store: Store, image: dict[str, Any], index: dict[str, Any]
) -> None:
    for kind, document in (
        (INDEX, image),
        (OTHER, {**image, "mediaType": INDEX}),
        (MANIFEST, {**image, "mediaType": INDEX}),
        (MANIFEST, index),
        (DOCKER, index),
        (INDEX, {**index, "mediaType": MANIFEST}),
    ):
        found = put(store, kind, document)
        store.tag("other", found)
        with pytest.raises(ImageError, match="is not clear"):
            layouts.find(store.root, "other")
        with pytest.raises(ImageError):
            layouts.read(store.root, found)


@pytest.mark.parametrize("kind", [None, MANIFEST, DOCKER])
def test_a_manifest_and_an_index_that_say_so_are_read(
    store: Store, image: dict[str, Any], index: dict[str, Any], kind: str | None
) -> None:
    store.tag("image", put(store, kind or OTHER, {**image, "mediaType": kind}))
    store.tag("index", put(store, INDEX, {**index, "mediaType": INDEX}))
    store.tag("bare", put(store, OTHER, index))
    ones = [layouts.find(store.root, name).config for name in ("image", "index", "bare")]
    said = [json.loads(store.read(one.digest))["of"] for one in ones]
    assert said == ["the image", "the index", "the index"]
