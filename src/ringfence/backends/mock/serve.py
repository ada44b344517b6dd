"""The file operations of the mock's guest: one function per op, from payload to answer."""

import errno
from collections.abc import Callable, Iterator
from typing import Final

from ringfence.backends.mock.node import Node, failure
from ringfence.backends.mock.script import Recorded
from ringfence.backends.mock.tree import Tree
from ringfence.guest.payload import Payload
from ringfence.guest.protocol import STAT, U32, U64, Ask, Cred, Stat, WriteFlag, string

PAGE_BYTES: Final = 512 * 1024
_NO_STAT = Stat(0, 0, 0, 0, 0, 0, 0, 0)


def who(fields: Payload) -> Cred:
    """A `cred`."""
    return Cred(fields.u32(), fields.u32(), fields.numbers())


def failed(number: int, stage: int = 0, detail: str = "") -> bytes:
    """The payload of FAIL. number: an errno."""
    return U32.pack(number) + bytes((stage,)) + string(detail.encode())


def entry(name: bytes, stat: Stat) -> bytes:
    """A name and its stat."""
    return string(name) + STAT.pack(*stat)


def stat(tree: Tree, fields: Payload) -> bytes:
    """STAT."""
    user, follow, path = who(fields), fields.u8(), fields.string()
    return STAT.pack(*tree.find(path, user, follow=bool(follow)).stat())


def list_dir(tree: Tree, fields: Payload) -> bytes:
    """LIST_DIR: names in order; the cursor is a slash and the last one given."""
    user, path, cursor = who(fields), fields.string(), fields.string()
    limit, with_stat = fields.u32(), fields.u8()
    if cursor and not cursor.startswith(b"/"):
        raise failure(errno.EINVAL)
    entries = tree.directory(path, user).entries
    names = sorted(name for name in entries if name > cursor[1:])
    parts: list[bytes] = []
    room = PAGE_BYTES
    for name in names[:limit]:
        row = entry(name, entries[name].stat() if with_stat else _NO_STAT)
        room -= len(row)
        if room < 0:
            break
        parts.append(row)
    more = len(parts) < len(names)
    after = b"/" + names[len(parts) - 1] if more and parts else b""
    return bytes((more,)) + string(after) + U32.pack(len(parts)) + b"".join(parts)


def mkdir(tree: Tree, fields: Payload) -> bytes:
    """MKDIR."""
    user, mode, parents = who(fields), fields.u32(), fields.u8()
    tree.mkdir(fields.string(), user, mode=mode, parents=bool(parents))
    return b""


def remove(tree: Tree, fields: Payload) -> bytes:
    """REMOVE."""
    user, recursive = who(fields), fields.u8()
    return U64.pack(tree.remove(fields.string(), user, recursive=bool(recursive)))


def rename(tree: Tree, fields: Payload) -> bytes:
    """RENAME."""
    user, replace = who(fields), fields.u8()
    tree.rename(fields.string(), fields.string(), user, replace=bool(replace))
    return b""


def chmod(tree: Tree, fields: Payload) -> bytes:
    """CHMOD."""
    user, mode = who(fields), fields.u32()
    tree.chmod(fields.string(), user, mode)
    return b""


def copy(tree: Tree, fields: Payload) -> bytes:
    """COPY."""
    user, recursive = who(fields), fields.u8()
    return U64.pack(tree.copy(fields.string(), fields.string(), user, recursive=bool(recursive)))


def symlink(tree: Tree, fields: Payload) -> bytes:
    """SYMLINK."""
    user = who(fields)
    tree.symlink(fields.string(), fields.string(), user)
    return b""


def readlink(tree: Tree, fields: Payload) -> bytes:
    """READLINK."""
    user = who(fields)
    return string(tree.readlink(fields.string(), user))


SHORT: Final[dict[int, Callable[[Tree, Payload], bytes]]] = {
    Ask.STAT: stat,
    Ask.LIST_DIR: list_dir,
    Ask.MKDIR: mkdir,
    Ask.REMOVE: remove,
    Ask.RENAME: rename,
    Ask.CHMOD: chmod,
    Ask.COPY: copy,
    Ask.SYMLINK: symlink,
    Ask.READLINK: readlink,
}
"""Operations that are answered with DONE at once."""


BEFORE_PATH: Final = {
    Ask.STAT: 1,
    Ask.LIST_DIR: 0,
    Ask.READ: 0,
    Ask.WRITE: 0,
    Ask.MKDIR: 5,
    Ask.REMOVE: 1,
    Ask.RENAME: 1,
    Ask.CHMOD: 4,
    Ask.COPY: 1,
    Ask.SYMLINK: 0,
    Ask.READLINK: 0,
    Ask.WATCH: 1,
    Ask.WALK: 0,
}
"""File operations, with the bytes between their cred and their path."""


def recorded(name: str, op: int, fields: Payload) -> Recorded:
    """What a test wants to know of a file operation."""
    user = who(fields)
    fields.raw(BEFORE_PATH[op])
    path = fields.string()
    if op == Ask.SYMLINK:
        path = fields.string()
    return Recorded(name, path=path.decode("utf-8", "surrogateescape"), uid=user.uid)


def walk(tree: Tree, user: Cred, path: bytes, depth: int, most: int) -> Iterator[tuple[int, bytes]]:
    """WALK: the number of entries and the payload of each ENTRIES frame."""
    batch: list[bytes] = []
    for count, (name, node) in enumerate(tree.walk(path, user, depth), 1):
        if count > most:
            break
        batch.append(entry(name, node.stat()))
        if len(batch) == 256:
            yield len(batch), U32.pack(len(batch)) + b"".join(batch)
            batch = []
    if batch:
        yield len(batch), U32.pack(len(batch)) + b"".join(batch)


class Write:
    """A WRITE under way. ATOMIC writes become visible at the end only."""

    def __init__(self, tree: Tree, fields: Payload) -> None:
        self._tree = tree
        self._user = who(fields)
        self._path = fields.string()
        self.flags, self._mode, self._at = fields.u32(), fields.u32(), fields.u64()
        first = fields.rest()
        self._data = bytearray()
        self._node: Node | None = None
        self.received = 0
        if self.flags & WriteFlag.PARENTS:
            above = self._path.rpartition(b"/")[0]
            if above:
                self._make_parents(above)
        self._check_target()
        self.put(first)

    def _make_parents(self, above: bytes) -> None:
        try:
            self._tree.mkdir(above, self._user, parents=True)
        except FileExistsError:
            raise failure(errno.ENOTDIR) from None

    def _check_target(self) -> None:
        if not self.flags & WriteFlag.ATOMIC:
            self._node = self._open()
            return
        try:
            node = self._tree.find(self._path, self._user, follow=False)
        except FileNotFoundError:
            if not self.flags & WriteFlag.CREATE:
                raise
            return
        if self.flags & WriteFlag.EXCLUSIVE:
            raise failure(errno.EEXIST)
        if node.is_directory:
            raise failure(errno.EISDIR)
        if not node.is_link:
            self._mode = node.mode & 0o1777

    def _open(self) -> Node:
        flags = self.flags
        node = self._tree.open_write(
            self._path,
            self._user,
            create=bool(flags & WriteFlag.CREATE),
            exclusive=bool(flags & WriteFlag.EXCLUSIVE),
            mode=self._mode,
        )
        if flags & WriteFlag.TRUNCATE:
            node.data.clear()
        if flags & WriteFlag.APPEND:
            self._at = len(node.data)
        return node

    def put(self, data: bytes) -> None:
        """More data."""
        self.received += len(data)
        if self._node is None:
            self._data += data
            return
        target = self._node.data
        if len(target) < self._at:
            target += bytes(self._at - len(target))
        target[self._at : self._at + len(data)] = data
        self._at += len(data)
        self._tree.modified(self._node, self._path)

    def finish(self) -> bytes:
        """The payload of DONE."""
        if self._node is None:
            self._replace()
        return U64.pack(self.received)

    def _replace(self) -> None:
        beside = self._path + b".ringfence-new"
        node = self._tree.open_write(
            beside, self._user, create=True, exclusive=False, mode=self._mode
        )
        node.data[:] = self._data
        self._tree.modified(node, beside)
        self._tree.rename(beside, self._path, self._user)
