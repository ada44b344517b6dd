"""Errors of digests and of the content store, as the command line reports them."""

from collections.abc import Iterator
from contextlib import contextmanager

from ringfence.errors import (
    InvalidSpecError,
    NotFoundError,
    ResourceExhaustedError,
    SandboxError,
    StateError,
)


@contextmanager
def translated(op: str) -> Iterator[None]:
    """Raise the SandboxError that corresponds to an error of digests, the store or the system."""
    from ringfence.digest import DigestError
    from ringfence.digest.store import BlobNotFound, QuotaExceeded, StoreError

    try:
        yield
    except SandboxError:
        raise
    except BlobNotFound as error:
        raise NotFoundError(str(error), op=op) from None
    except QuotaExceeded as error:
        raise ResourceExhaustedError(str(error), op=op) from None
    except StoreError as error:
        raise StateError(str(error), op=op) from None
    except DigestError as error:
        raise InvalidSpecError(str(error), op=op) from None
    except FileNotFoundError as error:
        raise NotFoundError(f"{error.filename}: {error.strerror}", op=op) from None
    except OSError as error:
        raise StateError(f"{error.filename}: {error.strerror}", op=op) from None
