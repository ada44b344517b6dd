"""A content store: blobs on disk under their digests, in an OCI image layout.

A *blob* is content that was verified when it came in and is never changed. An *ingest* is a blob
in the making; it survives a crash and goes on from its last checkpoint. *Labels* are small texts
kept with a blob. *Roots* are what garbage collection keeps: the entries of index.json, blobs with
the label "ringfence.keep", and everything that those refer to.
"""

from ringfence.digest.store.errors import (
    BlobExists,
    BlobNotFound,
    IngestBusy,
    QuotaExceeded,
    StoreBusy,
    StoreError,
    StoreInvalid,
)
from ringfence.digest.store.garbage import KEEP, Collected
from ringfence.digest.store.ingest import Ingest
from ringfence.digest.store.scrub import Damage
from ringfence.digest.store.store import Blob, Store

__all__ = [
    "KEEP",
    "Blob",
    "BlobExists",
    "BlobNotFound",
    "Collected",
    "Damage",
    "Ingest",
    "IngestBusy",
    "QuotaExceeded",
    "Store",
    "StoreBusy",
    "StoreError",
    "StoreInvalid",
]
