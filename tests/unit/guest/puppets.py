"""A guest whose every byte the test chooses."""

import asyncio
import socket
import struct

from ringfence.guest.protocol import (
    EXIT,
    HEADER,
    HELLO_TAIL,
    VERSION,
    Answer,
    Ask,
    string,
)

PID = struct.pack("<I", 7)


def guest_frame(op: int, operation_id: int, payload: bytes = b"") -> bytes:
    """One frame as a guest sends it, without any check."""
    return HEADER.pack(len(payload) + 5, op, operation_id) + payload


def exit_payload(status: int = 0, *, out: int = 0, err: int = 0, code: int = 0) -> bytes:
    """The payload of EXIT."""
    return EXIT.pack(status, code, 1, 0, 0, 0, out, err, 1, *(0,) * 9)


def hello_payload(
    marker: bytes, version: int = VERSION, epoch: int = 1, features: int = 0
) -> bytes:
    """The payload of the guest's HELLO."""
    return marker + HELLO_TAIL.pack(version, features, 65501, epoch, 0) + string(b"puppet")


class Puppet(asyncio.Protocol):
    """Answers HELLO (after `prefix`) and PING, records the rest, sends what it is told to.

    answers: frames to send, by op of the question; {id} is the question's.
    """

    def __init__(
        self,
        prefix: bytes = b"",
        version: int = VERSION,
        *,
        mute: bool = False,
        features: int = 0,
    ) -> None:
        self.prefix = prefix
        self.version = version
        self.features = features
        self.mute = mute
        self.pings = True
        self.frames: list[tuple[int, int, bytes]] = []
        self.answers: dict[int, list[tuple[int, bytes]]] = {}
        self.arrived = asyncio.Event()
        self.transport: asyncio.Transport | None = None
        self._data = bytearray()

    async def connect(self, factory) -> asyncio.Transport:
        """Like `Instance.connect`."""
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, sock=theirs)
        transport, _ = await loop.create_connection(factory, sock=ours)
        return transport

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= HEADER.size:
            length, op, operation_id = HEADER.unpack_from(self._data)
            if len(self._data) < 4 + length:
                break
            payload = bytes(self._data[HEADER.size : 4 + length])
            del self._data[: 4 + length]
            self._receive(op, operation_id, payload)

    def _receive(self, op: int, operation_id: int, payload: bytes) -> None:
        if op == Ask.HELLO and not self.mute:
            hello = hello_payload(payload[4:20], self.version, features=self.features)
            self.send_bytes(self.prefix + guest_frame(Answer.HELLO, 0, hello))
        elif op == Ask.PING:
            if self.pings:
                self.send(Answer.PONG, operation_id, payload)
        else:
            self.frames.append((op, operation_id, payload))
            self.arrived.set()
            for answer, data in self.answers.get(op, []):
                self.send(answer, operation_id, data)

    def send(self, op: int, operation_id: int, payload: bytes = b"") -> None:
        """Send one frame."""
        self.send_bytes(guest_frame(op, operation_id, payload))

    def send_bytes(self, data: bytes) -> None:
        """Send anything."""
        if self.transport is not None:
            self.transport.write(data)

    async def question(self, op: int) -> tuple[int, bytes]:
        """Id and payload of the first frame of this op, once it is there."""
        while True:
            for seen, operation_id, payload in self.frames:
                if seen == op:
                    return operation_id, payload
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 10)

    def sent(self, op: int) -> list[bytes]:
        """The payloads of all frames of this op so far."""
        return [payload for seen, _, payload in self.frames if seen == op]

    def hang_up(self) -> None:
        """End the stream."""
        if self.transport is not None:
            self.transport.abort()
