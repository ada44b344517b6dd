"""Finding a node by its path, as Linux resolves one: links, "..", permission to search."""

import errno

from ringfence.backends.mock.node import SEARCH, Node, failure
from ringfence.guest.protocol import Cred

_LINKS_MAX = 40
_NAME_BYTES = 255


def find(root: Node, path: bytes, who: Cred, *, follow: bool = True) -> Node:
    """The node at `path`; ENOENT, ENOTDIR, EACCES, ELOOP."""
    parent, name = holder(root, path, who, follow_last=follow)
    if not name:
        return parent
    node = parent.entries.get(name)
    if node is None:
        raise failure(errno.ENOENT)
    return node


def holder(root: Node, path: bytes, who: Cred, *, follow_last: bool) -> tuple[Node, bytes]:
    """The directory that holds (or would hold) `path` and the name in it; b"" for "/"."""
    trail = [root]
    waiting = parts(path)
    links = 0
    name = b""
    while waiting:
        name = waiting.pop(0)
        here = trail[-1]
        if not here.is_directory:
            raise failure(errno.ENOTDIR)
        here.check(who, SEARCH)
        if len(name) > _NAME_BYTES:
            raise failure(errno.ENAMETOOLONG)
        if name == b"..":
            trail = trail[:-1] or [root]
            name = b""
            continue
        node = here.entries.get(name)
        if node is not None and node.is_link and (waiting or follow_last):
            links += 1
            if links > _LINKS_MAX:
                raise failure(errno.ELOOP)
            waiting = parts(node.target) + waiting
            if node.target.startswith(b"/"):
                trail = [root]
            name = b""
            continue
        if not waiting:
            return here, name
        if node is None:
            raise failure(errno.ENOENT)
        trail.append(node)
        name = b""
    return trail[-1], b""


def parts(path: bytes) -> list[bytes]:
    """The names in a path."""
    return [part for part in path.split(b"/") if part not in (b"", b".")]
