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
    errno.ENAMETOOLONG: (
        FileError,
        "a name is over 255 bytes, or a path at or below it over 4095",
        "shorten it, or begin further down",
    ),
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


_OF_TWO = {
    errno.EINVAL: ("they are the same, one is inside the other, or it is no file", "see stat"),
    errno.EISDIR: ("one of them is a directory", "name a file, or copy recursively"),
    errno.EEXIST: ("the destination is there already", "remove it or allow replacing"),
    errno.ENOTEMPTY: ("the destination is a directory that is not empty", "remove it first"),
    errno.ENOTDIR: ("what should be a directory is none", "name a directory"),
}
"""For what is moved or copied, where either path may be meant."""

_OF_WATCHING = {
    errno.EMFILE: (
        "no inotify instance is left to its user, whose sandboxes share them",
        "end what else watches, or raise fs.inotify.max_user_instances",
    ),
    errno.ENOSPC: (
        "no inotify watch is left to its user, whose sandboxes share them",
        "watch a smaller tree, or raise fs.inotify.max_user_watches",
    ),
}
"""The kernel counts both for each uid of the host: inotify(7)."""


def file_error(op: str, path: bytes, failure: Failure, *, to: bytes | None = None) -> FileError:
    """The error for a FAIL of `op` on `path` (and `to`); they are in it, with the errno."""
    number = failure.errno
    cls, happened, remedy = _TABLE.get(
        number, (FileError, os.strerror(number & 0xFFFF), "see the errno")
    )
    shown = _shown(path)
    context = {"path": shown, "errno": number}
    where = repr(shown)
    if to is not None:
        context["to"] = _shown(to)
        where += f" to {context['to']!r}"
        happened, remedy = _OF_TWO.get(number, (happened, remedy))
    elif op == "files.readlink" and number == errno.EINVAL:
        happened = "it is no symbolic link"
    elif op == "files.watch":
        happened, remedy = _OF_WATCHING.get(number, (happened, remedy))
    return cls(f"{op}: {where}: {happened}; {remedy}", op=op, context=context)


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def too_large(op: str, path: bytes, limit: int) -> FileTooLargeError:
    """The error for more than the `limit` bytes that the caller allowed."""
    shown = path.decode("utf-8", "surrogateescape")
    return FileTooLargeError(
        f"{op}: {shown!r} is over {limit} bytes: raise the limit or read it as a stream",
        op=op,
        context={"path": shown, "limit": limit},
    )
