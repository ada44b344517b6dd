"""What a file of the original has besides its content, mode and owner."""

import errno
import os

from ringfence.workspace.beneath import open_file

_LIST = "system.posix_acl_access"
_NONE = (errno.EOPNOTSUPP, errno.ENOSYS)


def keep(root: int, path: str, directory: int, name: str) -> None:
    """Give the file `name` of a directory of ours the user attributes and the access control list
    of the file `path` below `root`, and no other list. Its mode is to be set afterwards. OSError.

    Capabilities are not kept: the kernel takes them from a file that is written, too.
    """
    source = open_file(root, path)
    try:
        target = open_file(directory, name)
        try:
            _copy(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy(source: int, target: int) -> None:
    names = _names(source)
    if _LIST in _names(target) and _LIST not in names:
        os.removexattr(target, _LIST)
    for name in names:
        if name == _LIST or name.startswith("user."):
            os.setxattr(target, name, os.getxattr(source, name))


def _names(descriptor: int) -> list[str]:
    try:
        return os.listxattr(descriptor)
    except OSError as error:
        if error.errno in _NONE:
            return []
        raise
