"""What the guest's errno of a file operation means here: one table."""

import errno
import os

from ringfence.errors import (
    FileError,
    FileTooLargeError,
    PathDeniedError,
    PathExistsError,
    PathIsADirectoryError,
    PathNotADirectoryError,
    PathNotFoundError,
)
from ringfence.guest.protocol import Failure

_TABLE: dict[int, tuple[type[FileError], str, str]] = {
    errno.ENOENT: (PathNotFoundError, "nothing is there", "check the path, or make its parents"),
    errno.EEXIST: (PathExistsError, "something is there already", "remove it or allow replacing"),
    errno.ENOTEMPTY: (PathExistsError, "the directory is not empty", "remove it recursively"),
    errno.EISDIR: (PathIsADirectoryError, "it is a directory", "name a file"),
    errno.ENOTDIR: (PathNotADirectoryError, "it is no directory", "name a directory"),
    errno.EACCES: (PathDeniedError, "the user has no permission", "use another user or path"),
    errno.EPERM: (PathDeniedError, "the user may not do this", "use another user or path"),
    errno.EROFS: (PathDeniedError, "the file system is read-only", "write below /tmp or a mount"),
    errno.EFBIG: (FileTooLargeError, "it would be over the file size limit", "raise fsize"),
    errno.ENOSPC: (FileError, "no space is left", "remove files or raise the size of its mount"),
    errno.EDQUOT: (FileError, "the disk quota is used up", "remove files"),
    errno.ENAMETOOLONG: (FileError, "the name is too long", "use names up to 255 bytes"),
    errno.ELOOP: (FileError, "there are too many links on the way", "name the target"),
    errno.EINVAL: (FileError, "it is not a regular file, or not possible here", "see stat"),
    errno.ENXIO: (FileError, "it is not a regular file", "see stat"),
    errno.EXDEV: (FileError, "the two are on different file systems", "copy and remove"),
    errno.EBUSY: (FileError, "it is in use", "end what uses it"),
    errno.ETXTBSY: (FileError, "it is a program that is running", "end it or replace it"),
    errno.EMFILE: (FileError, "too many files are open", "close some or try again"),
    errno.ENFILE: (FileError, "too many files are open", "close some or try again"),
    errno.ENOMEM: (FileError, "the sandbox is out of memory", "raise its memory limit"),
    errno.ECANCELED: (FileError, "it was canceled", "do it again"),
    errno.ENOSYS: (FileError, "the guest cannot do this", "use a command instead"),
}


def file_error(op: str, path: bytes, failure: Failure) -> FileError:
    """The error for a FAIL of `op` on `path`; both are in it, with the errno."""
    cls, happened, remedy = _TABLE.get(
        failure.errno, (FileError, os.strerror(failure.errno & 0xFFFF), "see the errno")
    )
    shown = path.decode("utf-8", "surrogateescape")
    return cls(
        f"{op}: {shown!r}: {happened}; {remedy}",
        op=op,
        context={"path": shown, "errno": failure.errno},
    )


def too_large(op: str, path: bytes, limit: int) -> FileTooLargeError:
    """The error for more than the `limit` bytes that the caller allowed."""
    shown = path.decode("utf-8", "surrogateescape")
    return FileTooLargeError(
        f"{op}: {shown!r} is over {limit} bytes: raise the limit or read it as a stream",
        op=op,
        context={"path": shown, "limit": limit},
    )
