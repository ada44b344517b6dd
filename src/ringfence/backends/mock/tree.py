"""A file tree in memory, with owners and permission bits.

Errors are OSError with the errno that Linux would give. User 0 is a user like any other, as in a
sandbox, where it has no capabilities.
"""

import errno
import itertools
import stat
import time
from collections.abc import Callable, Iterator

from ringfence.backends.mock.lookup import find, holder, parts
from ringfence.backends.mock.node import READ, SEARCH, WRITE, Node, failure
from ringfence.guest.protocol import Cred

CREATED, DELETED, MODIFIED, MOVED_FROM, MOVED_TO = 0x100, 0x200, 0x2, 0x40, 0x80
ATTRIBUTES = 0x4
IS_DIRECTORY = 0x40000000

Watcher = Callable[[int, bytes], None]
"""Called with an inotify mask and the absolute path that changed."""


class Tree:
    """The tree from "/" on. All paths are absolute bytes."""

    def __init__(self) -> None:
        self._inodes = itertools.count(2)
        self.root = self._node(stat.S_IFDIR | 0o755, Cred(0, 0))
        self.watchers: list[Watcher] = []

    def _node(self, mode: int, who: Cred) -> Node:
        return Node(mode, who.uid, who.gid, next(self._inodes))

    def _changed(self, mask: int, path: bytes) -> None:
        for watcher in list(self.watchers):
            watcher(mask, path)

    # Finding.

    def find(self, path: bytes, who: Cred, *, follow: bool = True) -> Node:
        """The node at `path`; ENOENT, ENOTDIR, EACCES, ELOOP."""
        return find(self.root, path, who, follow=follow)

    def _parent(self, path: bytes, who: Cred, *, follow_last: bool) -> tuple[Node, bytes]:
        return holder(self.root, path, who, follow_last=follow_last)

    def _is_link(self, path: bytes, who: Cred) -> bool:
        parent, name = self._parent(path, who, follow_last=False)
        return name in parent.entries and parent.entries[name].is_link

    def exists(self, path: bytes) -> bool:
        """Whether something is at `path`, whoever asks."""
        try:
            self.find(path, Cred(0, 0))
        except OSError as error:
            return error.errno == errno.EACCES
        return True

    # Reading.

    def directory(self, path: bytes, who: Cred) -> Node:
        """The readable directory at `path`."""
        node = self.find(path, who)
        if not node.is_directory:
            raise failure(errno.ENOTDIR)
        node.check(who, READ | SEARCH)
        return node

    def open_read(self, path: bytes, who: Cred) -> Node:
        """The readable regular file at `path`."""
        node = self.find(path, who)
        node.check(who, READ)
        if node.is_directory:
            raise failure(errno.EISDIR)
        return node

    def walk(self, path: bytes, who: Cred, depth: int) -> Iterator[tuple[bytes, Node]]:
        """All below `path` with relative paths, directories before what they hold."""
        waiting = [(b"", self.directory(path, who), 1)]
        while waiting:
            prefix, directory, level = waiting.pop()
            for name, node in list(directory.entries.items()):
                yield prefix + name, node
                inside = node.is_directory and node.allows(who, READ | SEARCH)
                if inside and level < depth:
                    waiting.append((prefix + name + b"/", node, level + 1))

    # Changing.

    def _add(self, parent: Node, name: bytes, node: Node, who: Cred) -> None:
        parent.check(who, WRITE | SEARCH)
        parent.entries[name] = node
        parent.mtime_ns = time.time_ns()

    def open_write(
        self, path: bytes, who: Cred, *, create: bool, exclusive: bool, mode: int
    ) -> Node:
        """The writable regular file at `path`, made when asked for."""
        parent, name = self._parent(path, who, follow_last=not exclusive)
        if not name:
            raise failure(errno.EISDIR)
        node = parent.entries.get(name)
        if node is None:
            if not create:
                raise failure(errno.ENOENT)
            node = self._node(stat.S_IFREG | mode & 0o7777, who)
            self._add(parent, name, node, who)
            self._changed(CREATED, path)
            return node
        if exclusive:
            raise failure(errno.EEXIST)
        if node.is_directory:
            raise failure(errno.EISDIR)
        node.check(who, WRITE)
        return node

    def plant(self, path: bytes, owner: Cred, data: bytes) -> None:
        """Put a file there, with the directories above it, whatever the permissions say."""
        here = self.root
        *above, name = parts(path)
        for part in above:
            if part not in here.entries:
                here.entries[part] = self._node(stat.S_IFDIR | 0o755, owner)
            here = here.entries[part]
        node = self._node(stat.S_IFREG | 0o644, owner)
        node.data += data
        here.entries[name] = node

    def modified(self, node: Node, path: bytes) -> None:
        """Say that `node`, found at `path`, has other data now."""
        node.mtime_ns = time.time_ns()
        self._changed(MODIFIED, path)

    def mkdir(self, path: bytes, who: Cred, *, mode: int = 0o755, parents: bool = False) -> None:
        """Make a directory."""
        if parents:
            self._mkdir_parents(path, who, mode)
            return
        parent, name = self._parent(path, who, follow_last=False)
        if not name or name in parent.entries:
            raise failure(errno.EEXIST)
        self._add(parent, name, self._node(stat.S_IFDIR | mode & 0o7777, who), who)
        self._changed(CREATED | IS_DIRECTORY, path)

    def _mkdir_parents(self, path: bytes, who: Cred, mode: int) -> None:
        names = parts(path)
        for count in range(1, len(names) + 1):
            place = b"/" + b"/".join(names[:count])
            try:
                self._mkdir_unless_there(place, who, mode)
            except FileExistsError:
                raise failure(errno.EEXIST if count == len(names) else errno.ENOTDIR) from None

    def _mkdir_unless_there(self, path: bytes, who: Cred, mode: int) -> None:
        try:
            node = self.find(path, who)
        except FileNotFoundError:
            self.mkdir(path, who, mode=mode)
        else:
            if not node.is_directory:
                raise failure(errno.EEXIST)

    def symlink(self, target: bytes, path: bytes, who: Cred) -> None:
        """Make a symbolic link."""
        parent, name = self._parent(path, who, follow_last=False)
        if not name or name in parent.entries:
            raise failure(errno.EEXIST)
        node = self._node(stat.S_IFLNK | 0o777, who)
        node.target = target
        self._add(parent, name, node, who)
        self._changed(CREATED, path)

    def readlink(self, path: bytes, who: Cred) -> bytes:
        """What a symbolic link holds."""
        node = self.find(path, who, follow=False)
        if not node.is_link:
            raise failure(errno.EINVAL)
        return node.target

    def chmod(self, path: bytes, who: Cred, mode: int) -> None:
        """Set the permission bits; only the owner may."""
        node = self.find(path, who)
        if node.uid != who.uid:
            raise failure(errno.EPERM)
        node.mode = stat.S_IFMT(node.mode) | mode & 0o7777
        self._changed(ATTRIBUTES, path)

    def remove(self, path: bytes, who: Cred, *, recursive: bool = False) -> int:
        """Remove what is at `path`; how many entries went."""
        parent, name = self._parent(path, who, follow_last=False)
        if not name:
            raise failure(errno.EBUSY)
        node = parent.entries.get(name)
        if node is None:
            raise failure(errno.ENOENT)
        count = 0
        self._check_removal(parent, node, who)
        if node.is_directory and node.entries:
            if not recursive:
                raise failure(errno.ENOTEMPTY)
            for child in list(node.entries):
                count += self.remove(path + b"/" + child, who, recursive=True)
        del parent.entries[name]
        parent.mtime_ns = time.time_ns()
        self._changed(DELETED | (IS_DIRECTORY if node.is_directory else 0), path)
        return count + 1

    def _check_removal(self, parent: Node, node: Node, who: Cred) -> None:
        parent.check(who, WRITE | SEARCH)
        sticky = parent.mode & stat.S_ISVTX
        if sticky and who.uid not in (node.uid, parent.uid):
            raise failure(errno.EPERM)

    def rename(self, path: bytes, to: bytes, who: Cred, *, replace: bool = True) -> None:
        """Move; a directory replaces only an empty one."""
        parent, name = self._parent(path, who, follow_last=False)
        new_parent, new_name = self._parent(to, who, follow_last=False)
        node = parent.entries.get(name)
        if not name or not new_name:
            raise failure(errno.EBUSY)
        if node is None:
            raise failure(errno.ENOENT)
        taken = new_parent.entries.get(new_name)
        if taken is not None and not replace:
            raise failure(errno.EEXIST)
        if _holds(node, new_parent):
            raise failure(errno.EINVAL)
        if taken is not None and _holds(taken, parent):
            raise failure(errno.ENOTEMPTY)
        if taken is not None and taken is not node:
            _check_replacement(node, taken)
            self._check_removal(new_parent, taken, who)
        self._check_removal(parent, node, who)
        new_parent.check(who, WRITE | SEARCH)
        if node.is_directory and new_parent is not parent:
            node.check(who, WRITE)
        del parent.entries[name]
        new_parent.entries[new_name] = node
        kind = IS_DIRECTORY if node.is_directory else 0
        self._changed(MOVED_FROM | kind, path)
        self._changed(MOVED_TO | kind, to)

    def copy(
        self, path: bytes, to: bytes, who: Cred, *, recursive: bool = False, top: bool = True
    ) -> int:
        """Copy a file, a link or a tree; the bytes of its files."""
        node = self.find(path, who, follow=not recursive)
        if node.is_link:
            self.symlink(node.target, to, who)
            return 0
        node.check(who, READ)
        if not node.is_directory:
            mode = stat.S_IMODE(node.mode)
            if not top and self._is_link(to, who):
                raise failure(errno.ELOOP)
            copy = self.open_write(to, who, create=True, exclusive=False, mode=mode)
            if copy is node:
                raise failure(errno.EINVAL)
            copy.data[:] = node.data
            self.modified(copy, to)
            return len(node.data)
        if not recursive:
            raise failure(errno.EISDIR)
        names = list(self.directory(path, who).entries)
        self.mkdir(to, who, mode=stat.S_IMODE(node.mode), parents=True)
        return sum(
            self.copy(path + b"/" + name, to + b"/" + name, who, recursive=True, top=False)
            for name in names
        )


def _check_replacement(node: Node, taken: Node) -> None:
    if taken.is_directory and not node.is_directory:
        raise failure(errno.EISDIR)
    if node.is_directory and not taken.is_directory:
        raise failure(errno.ENOTDIR)
    if taken.entries:
        raise failure(errno.ENOTEMPTY)


def _holds(node: Node, wanted: Node) -> bool:
    waiting = [node]
    while waiting:
        here = waiting.pop()
        if here is wanted:
            return True
        waiting.extend(child for child in here.entries.values() if child.is_directory)
    return False
