"""What a file of the original has besides its content, mode and owner."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ringfence.errors import StateError
from ringfence.workspace.beneath import open_file
from ringfence.workspace.failures import FULL, shown

_LIST = "system.posix_acl_access"
_NONE = (errno.EOPNOTSUPP, errno.ENOSYS)


def keep(root: int, path: str, directory: int, name: str) -> None:
    """Give the file `name` of a directory of ours the user attributes and the access control list
    of the file `path` below `root`, and no other list. Its mode is to be set afterwards. StateError
    for one that cannot be given, as where the file system has none any more; OSError.

    Capabilities are not kept: the kernel takes them from a file that is written, too.
    """
    source = open_file(root, path)
    try:
        target = open_file(directory, name)
        try:
            _copy(source, target, path)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy(source: int, target: int, path: str) -> None:
    names = _names(source)
    if _LIST in _names(target) and _LIST not in names:
        with _keeping(path, _LIST):
            os.removexattr(target, _LIST)
    for name in names:
        if name == _LIST or name.startswith("user."):
            value = os.getxattr(source, name)
            with _keeping(path, name):
                os.setxattr(target, name, value)


@contextmanager
def _keeping(path: str, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        raise StateError(
            f"{shown(path)}: {shown(name)} cannot be kept as it is ({error.strerror}): take it"
            " from the file, or take the patch, and apply it with git apply",
            op="workspace.apply",
            context={"path": shown(path)},
        ) from None


def _names(descriptor: int) -> list[str]:
    try:
        return os.listxattr(descriptor)
    except OSError as error:
        if error.errno in _NONE:
            return []
        raise
