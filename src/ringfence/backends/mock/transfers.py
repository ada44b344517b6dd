"""The long file operations of the mock's guest: READ, WRITE, WALK and WATCH."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from ringfence.backends.mock import serve
from ringfence.backends.mock.pipes import Sender
from ringfence.backends.mock.tree import Tree
from ringfence.guest.payload import Payload
from ringfence.guest.protocol import NO_CAP, OUTPUT_WINDOW, STAT, U32, U64, Answer, Ask, string

Send = Callable[[int, bytes], None]
"""Sends one frame of the operation: op and payload."""


class Transfer(Protocol):
    """An operation that takes more frames. It calls `finish` when it has answered for good."""

    def receive(self, op: int, payload: bytes) -> None:
        """One more frame."""
        ...

    def close(self) -> None:
        """The session is over."""
        ...


class Read:
    """READ: the file as it was at the start."""

    def __init__(self, tree: Tree, fields: Payload, send: Send, finish: Callable[[], None]) -> None:
        user, path = serve.who(fields), fields.string()
        offset, length = fields.u64(), fields.u64()
        node = tree.open_read(path, user)
        stop = len(node.data) if length == NO_CAP else offset + length
        data = bytes(node.data[offset:stop])
        self._send = send
        self._finish = finish
        self._left = len(data)
        self._done = U64.pack(len(data)) + STAT.pack(*node.stat())
        self._offset = offset
        self._sender = Sender(self._part)
        self._sender.put(data)
        self._end()

    def _part(self, payload: bytes) -> None:
        self._left -= len(payload) - 8
        at = U64.unpack_from(payload)[0] + self._offset
        self._send(Answer.DATA, U64.pack(at) + payload[8:])

    def _end(self) -> None:
        if not self._left:
            self._send(Answer.DONE, self._done)
            self._finish()

    def receive(self, op: int, payload: bytes) -> None:
        """ACK."""
        if op == Ask.ACK:
            self._sender.ack(U64.unpack_from(payload, 1)[0])
            self._end()

    def close(self) -> None:
        """Nothing is kept."""


class Write:
    """WRITE with the data in FILE_DATA frames."""

    def __init__(self, write: serve.Write, send: Send, finish: Callable[[], None]) -> None:
        self._write = write
        self._send = send
        self._finish = finish
        self._received = 0

    def receive(self, op: int, payload: bytes) -> None:
        """FILE_DATA and FILE_END. OSError."""
        if op == Ask.FILE_DATA:
            self._write.put(payload)
            self._received += len(payload)
            self._send(Answer.STDIN_ACK, U64.pack(self._received))
        elif op == Ask.FILE_END:
            if payload == b"\0":
                self._send(Answer.DONE, self._write.finish())
            self._finish()

    def close(self) -> None:
        """What was written stays; an atomic write never shows."""


class Walk:
    """WALK: entries in batches, at most a window of them unacknowledged."""

    def __init__(self, tree: Tree, fields: Payload, send: Send, finish: Callable[[], None]) -> None:
        user, path = serve.who(fields), fields.string()
        depth, most = fields.u32(), fields.u64()
        self._batches = deque(serve.walk(tree, user, path, depth, most))
        self._total = sum(count for count, _ in self._batches)
        self._send = send
        self._finish = finish
        self._sent = 0
        self.receive(Ask.ACK, b"\1" + U64.pack(0))

    def receive(self, op: int, payload: bytes) -> None:
        """ACK."""
        if op != Ask.ACK:
            return
        (acked,) = U64.unpack_from(payload, 1)
        while self._batches and self._sent + len(self._batches[0][1]) - acked <= OUTPUT_WINDOW:
            _, batch = self._batches.popleft()
            self._sent += len(batch)
            self._send(Answer.ENTRIES, batch)
        if not self._batches:
            self._send(Answer.DONE, U64.pack(self._total))
            self._finish()

    def close(self) -> None:
        """Nothing is kept."""


class Watch:
    """WATCH: what the tree says has changed there."""

    def __init__(self, tree: Tree, fields: Payload, send: Send) -> None:
        user, self._recursive = serve.who(fields), bool(fields.u8())
        self._path = fields.string()
        tree.find(self._path, user)
        self._tree = tree
        self._send = send
        tree.watchers.append(self._changed)
        self._send(Answer.EVENT, U32.pack(0) * 2 + string(b""))

    def _changed(self, mask: int, path: bytes) -> None:
        prefix = self._path.rstrip(b"/") + b"/"
        relative = path.removeprefix(prefix)
        inside = path.startswith(prefix) and (self._recursive or b"/" not in relative)
        if inside or path == self._path:
            shown = relative if inside else b""
            self._send(Answer.EVENT, U32.pack(mask) + U32.pack(0) + string(shown))

    def receive(self, op: int, payload: bytes) -> None:
        """Only CANCEL means something, and the stream sees to that."""

    def close(self) -> None:
        """Stop watching."""
        self._tree.watchers.remove(self._changed)
