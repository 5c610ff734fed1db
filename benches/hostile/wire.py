"""ZMTP and MessagePack, as far as the cases need them; no code here checks the bytes it sends."""

import socket
import struct

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL".ljust(23, b"\0") + bytes(32)
PING = b"\x04\x07\x04PING\0\0"


def packed(value):
    if isinstance(value, list):
        return b"\xdc" + struct.pack(">H", len(value)) + b"".join(map(packed, value))
    if isinstance(value, dict):
        return b"\xde" + struct.pack(">H", len(value)) + b"".join(packed(k) + packed(v) for k, v in value.items())
    if isinstance(value, str):
        return b"\xda" + struct.pack(">H", len(value)) + value.encode()
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    return b"\xcf" + struct.pack(">Q", value)


def nils(count):
    """The value that is longest as JSON for its bytes."""
    return b"\xdd" + struct.pack(">I", count) + b"\xc0" * count


def request(method, params):
    return b"\x94\x00\x01" + packed(method) + packed(params)


def notification(method, params):
    return b"\x93\x02" + packed(method) + packed(params)


def frame(body, more=False):
    is_long = len(body) > 255
    return bytes([more | is_long << 1]) + struct.pack(">Q" if is_long else ">B", len(body)) + body


def tcp(endpoint):
    host, _, port = endpoint.rpartition("://")[2].rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


class Peer:
    """A connection after its handshake."""

    def __init__(self, endpoint, kind=b"DEALER"):
        self.socket = tcp(endpoint)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
        self.socket.sendall(GREETING + bytes([4, len(ready)]) + ready)
        self._take(64)
        self._frame()

    def _take(self, count):
        taken = bytearray()
        while len(taken) < count:
            part = self.socket.recv(count - len(taken))
            if not part:
                raise ConnectionError("closed by the broker")
            taken += part
        return bytes(taken)

    def _frame(self):
        flags = self._take(1)[0]
        length, = struct.unpack(">Q", self._take(8)) if flags & 2 else self._take(1)
        return flags, self._take(length)

    def send(self, *bodies):
        """Each as a message."""
        self.socket.sendall(b"".join(map(frame, bodies)))

    def receive(self):
        """The last frame of the next message."""
        flags = 1
        while flags & 5:
            flags, body = self._frame()
        return body

    def ask(self, method, params):
        self.send(request(method, params))
        return self.receive()

    def set(self, key, value):
        """`value` is MessagePack already."""
        self.send(b"\x94\x00\x01" + packed("set") + b"\x92" + packed(key) + value)
        return self.receive()
