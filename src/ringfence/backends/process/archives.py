"""Archives that stay what they were verified to be until they are unpacked.

Their digest names what is made of them, for everybody who asks for that digest later: nobody may
put other content in between, neither who owns the file nor who is just writing it anew.
"""

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import IO, Any, NamedTuple

from ringfence.digest import Digest, DigestError, VerifyingReader
from ringfence.errors import ImageError
from ringfence.images.layouts import open_regular

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_READ_BYTES = 2**20


class Archive(NamedTuple):
    """file: what is unpacked; the caller closes it. status: of the file there, None for a copy."""

    path: Path
    file: IO[bytes]
    status: os.stat_result | None

    def require_unchanged(self) -> None:
        """Raise ImageError when the file was written to since it was verified."""
        if self.status is not None and _version(os.fstat(self.file.fileno())) != _version(
            self.status
        ):
            raise ImageError(f"image: {self.path} changed while it was unpacked", op="create")


def verified(path: Path, digest: Digest, size: int | None, scratch: Path) -> Archive:
    """A file read through once: it has this digest, and this size unless that is None. ImageError.

    What others may write to is copied into `scratch`, a directory of ours alone.
    """
    try:
        source = open_regular(path)
        with VerifyingReader(source, digest, size) as reader:
            status = os.fstat(source.fileno())
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & _OTHERS_WRITE:
                copy: IO[Any] = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - the caller's
                shutil.copyfileobj(reader, copy, _READ_BYTES)
                copy.seek(0)
                return Archive(path, copy, None)
            while reader.read(_READ_BYTES):
                pass
            source.seek(0)
            return Archive(path, os.fdopen(os.dup(source.fileno()), "rb"), status)
    except (OSError, DigestError) as error:
        raise ImageError(f"image: {path} is damaged: {error}", op="create") from None


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
