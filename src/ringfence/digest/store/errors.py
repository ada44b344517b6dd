"""Every error of the content store but those of digests.

StoreError
├── BlobNotFound      no such blob
├── BlobExists        the blob that was to be ingested is there already
├── IngestBusy        another process, or another thread, is writing that ingest
├── QuotaExceeded     the store would grow over its quota
├── StoreBusy         somebody puts what has no name yet: nothing can be removed now
└── StoreInvalid      the directory is no content store, or not one to be trusted
"""


class StoreError(Exception):
    """The root."""


class BlobNotFound(StoreError, LookupError):
    """No such blob."""


class BlobExists(StoreError):
    """The blob that was to be ingested is there already."""


class IngestBusy(StoreError):
    """Another process, or another thread, is writing that ingest."""


class QuotaExceeded(StoreError):
    """The store would grow over its quota."""


class StoreBusy(StoreError):
    """Somebody puts what has no name yet: nothing can be removed now."""


class StoreInvalid(StoreError):
    """The directory is no content store, or somebody else can write to it."""
