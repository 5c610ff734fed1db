"""The whole client that these tests use: PROTOCOL.md in a few lines of pyzmq and msgpack."""

import msgpack
import zmq

PATIENCE_MS = 20_000
BEAT = b"\xffbeat"
LOST = b"\xfflost"


def connect(context, kind, endpoint, **options):
    socket = context.socket(kind)
    socket.rcvtimeo = socket.sndtimeo = PATIENCE_MS
    socket.linger = 0
    for name, value in options.items():
        setattr(socket, name, value)
    socket.connect(endpoint)
    return socket


def pack(*parts):
    return msgpack.packb(parts)


def unpack(frame):
    return msgpack.unpackb(frame, strict_map_key=False)


def call(socket, method, *params, id=1):
    """One request over a DEALER or a REQ; the result, or AssertionError with the error."""
    socket.send(pack(0, id, method, params))
    kind, echoed, error, result = unpack(socket.recv())
    assert (kind, echoed, error) == (1, id, None), error
    return result


def refused(socket, method, *params):
    """The code of the error that a request gets."""
    socket.send(pack(0, 1, method, params))
    return unpack(socket.recv())[2][0]


class Subscription:
    """A plain SUB with the checks of PROTOCOL.md, "Proving that nothing is missing"."""

    def __init__(self, context, endpoint, *prefixes, **options):
        self.socket = connect(context, zmq.SUB, endpoint, **options)
        for prefix in (*prefixes, BEAT):
            self.socket.subscribe(prefix)
        self.last = None
        self.changes = []
        self.gaps = []
        self.messages = []

    def receive(self):
        """One message, checked: (topic, header, value bytes)."""
        topic, header, value = self.socket.recv_multipart()
        header = unpack(header)
        seq, op, _, _, prev = header[:5]
        if self.last is None:
            self.last = prev
        assert seq >= self.last, "history went back"
        if prev > self.last:
            self.gaps.append((self.last, prev))
        if op == "lost":
            self.gaps.append((self.last, seq))
        elif op != "beat":
            self.changes.append((topic, header, value))
        self.last = seq
        self.messages.append((topic, header, value))
        return topic, header, value

    def until_beat(self, seq=0):
        """Receives until a beat says that everything up to `seq` has been seen."""
        while True:
            topic, header, _ = self.receive()
            if topic == BEAT and header[0] >= seq:
                return header
