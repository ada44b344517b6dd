"""Images in a store: their layers and configuration, put together by a manifest with a name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ringfence.digest.descriptor import Descriptor
from ringfence.digest.digest import Digest
from ringfence.digest.store.errors import StoreInvalid
from ringfence.digest.store.layout import parsed

if TYPE_CHECKING:
    from ringfence.digest.store.store import Store

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LARGEST = 16 * 1024 * 1024
"""Bytes of the largest manifest or configuration that is read."""


def put_image(
    store: Store,
    config: bytes | Mapping[str, Any],
    layers: Sequence[Descriptor],
    annotations: Mapping[str, str] | None = None,
    made: list[Digest] | None = None,
) -> Descriptor:
    """The manifest of an image whose layers are in the store: written, not named yet.

    config: a Mapping is written so that equal ones have equal digests. made: is told what was not
    there before, also of an image that fails.
    """
    data = config if isinstance(config, bytes) else _encoded(config)
    about = _put(store, CONFIG, data, made)
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": about.to_dict(),
        "layers": [layer.to_dict() for layer in layers],
    }
    return _put(store, MANIFEST, _annotated(document, annotations), made)


def put_index(
    store: Store,
    manifests: Sequence[Mapping[str, Any]],
    annotations: Mapping[str, str] | None = None,
) -> Descriptor:
    """An index over manifests in the store. manifests: descriptors as JSON has them."""
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}
    return _put(store, INDEX, _annotated(document, annotations))


def read_document(store: Store, digest: str) -> dict[str, Any]:
    """A manifest, an index or a configuration, verified.

    BlobNotFound, DigestError for a damaged one, StoreInvalid for what is none.
    """
    if store.info(digest).size > LARGEST:
        raise StoreInvalid(f"{digest} is too large for a manifest")
    return parsed(store.read(digest), digest)


def _put(
    store: Store, media_type: str, data: bytes, made: list[Digest] | None = None
) -> Descriptor:
    digest = Digest.from_bytes(data)
    if made is not None and digest not in store:
        made.append(digest)
    return Descriptor(media_type, store.put(data), len(data))


def _annotated(document: dict[str, Any], annotations: Mapping[str, str] | None) -> bytes:
    if annotations:
        document["annotations"] = dict(annotations)
    return _encoded(document)


def _encoded(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
