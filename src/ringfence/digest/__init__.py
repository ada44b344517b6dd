"""OCI digests: identifiers that say what the bytes are. Usable on its own; standard library only.

A *digest* names content as ``<algorithm>:<encoded>``. A *digester* is a sink that bytes are written
to and that tells their digest; it can be suspended to bytes and resumed. A *verifier* is a digester
with an expectation. A *digest set* finds digests by the beginning of their encoded part. The
content store, which keeps blobs under their digests, is `ringfence.digest.store`.
"""

from __future__ import annotations

from ringfence.digest.algorithm import CANONICAL, Algorithm
from ringfence.digest.digest import Digest
from ringfence.digest.errors import (
    DigestAmbiguous,
    DigestError,
    DigestInvalidFormat,
    DigestInvalidLength,
    DigestMismatch,
    DigestNotFound,
    DigestUnsupported,
    SizeMismatch,
    StateInvalid,
    StateUnusable,
    TrailingData,
    Unverified,
    VerificationError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ringfence.digest.descriptor import Descriptor
    from ringfence.digest.digester import Digester, Verifier
    from ringfence.digest.digestset import DigestSet
    from ringfence.digest.files import digest_file, digest_mapped
    from ringfence.digest.reader import AsyncVerifyingReader, VerifyingReader

__all__ = [
    "CANONICAL",
    "Algorithm",
    "AsyncVerifyingReader",
    "Descriptor",
    "Digest",
    "DigestAmbiguous",
    "DigestError",
    "DigestInvalidFormat",
    "DigestInvalidLength",
    "DigestMismatch",
    "DigestNotFound",
    "DigestSet",
    "DigestUnsupported",
    "Digester",
    "SizeMismatch",
    "StateInvalid",
    "StateUnusable",
    "TrailingData",
    "Unverified",
    "VerificationError",
    "Verifier",
    "VerifyingReader",
    "digest_file",
    "digest_mapped",
]


_HOMES = {
    "AsyncVerifyingReader": "reader",
    "Descriptor": "descriptor",
    "DigestSet": "digestset",
    "Digester": "digester",
    "Verifier": "digester",
    "VerifyingReader": "reader",
    "digest_file": "files",
    "digest_mapped": "files",
}
"""Loaded when they are first used, so that naming digests costs little."""


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'ringfence.digest' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"ringfence.digest.{home}"), name)
    globals()[name] = value
    return value
