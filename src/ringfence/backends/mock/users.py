"""Users as /etc/passwd and /etc/group of the mock's tree have them."""

import errno
from typing import NamedTuple

from ringfence.backends.mock.node import failure
from ringfence.backends.mock.tree import Tree
from ringfence.guest.protocol import Cred

_ROOT = Cred(0, 0)


class User(NamedTuple):
    """One user."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    shell: str


def look_up(tree: Tree, text: str) -> User:
    """The user that "", "name", "uid", "uid:gid" or "name:group" means; "" is uid 0.

    A number that no line has is a user without a name, in the group of that number. OSError(ENOENT)
    for an unknown name.
    """
    name, _, group = text.partition(":")
    users = _rows(tree, b"/etc/passwd", 7)
    groups = _rows(tree, b"/etc/group", 4)
    row = next((row for row in users if (name or "0") in (row[0], row[2])), None)
    if row is None and not name.isdigit():
        raise failure(errno.ENOENT)
    uid = int(name or 0) if row is None else int(row[2])
    own_gid = int(row[3]) if row else uid
    gid = _group(groups, group) if group else own_gid
    own = row[0] if row else ""
    others = tuple(int(g[2]) for g in groups if own and own in g[3].split(","))
    home, shell = (row[5], row[6]) if row else ("", "")
    return User(uid, gid, others, own, home, shell)


def _group(groups: list[list[str]], text: str) -> int:
    for row in groups:
        if text in (row[0], row[2]):
            return int(row[2])
    if text.isdigit():
        return int(text)
    raise failure(errno.ENOENT)


def _rows(tree: Tree, path: bytes, fields: int) -> list[list[str]]:
    try:
        text = tree.open_read(path, _ROOT).data.decode("utf-8", "replace")
    except OSError:
        return []
    rows = [line.split(":") for line in text.splitlines()]
    return [row for row in rows if len(row) == fields]
