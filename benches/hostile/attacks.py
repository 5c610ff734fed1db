"""The cases: each a function of the broker's endpoints, the bytes of a large value, and a scale of at most 1."""

import select
import socket
import struct
import time

from wire import PING, Peer, frame, nils, notification, packed, request, tcp

CASES = {}


def case(name, reconnects=False, address_space=None):
    """Registers a case. With `reconnects` the honest client connects anew each time."""
    return lambda attack: CASES.update({name: (attack, reconnects, address_space)})


def reset(peer):
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()
    time.sleep(3)


def read_slowly(sockets, seconds, rate):
    """Reads from each at `rate` bytes a second, as long as it is open."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for one in select.select(sockets, [], [], 0)[0]:
            if not tried(lambda: one.recv(rate // 10)):
                sockets.remove(one)
        time.sleep(0.1)


def tried(step):
    """The result of the call, or None where the broker cuts or refuses the connection."""
    try:
        return step()
    except OSError:
        return None


def many(count, make):
    """As many as the broker takes."""
    return [made for made in (tried(make) for _ in range(max(1, int(count)))) if made]


@case("A1 refused batches of a large value")
def refused_batches(at, value, scale):
    peer = Peer(at.router)
    peer.set("big", packed(bytes(value)))
    peer.send(*[request("batch", [[["get", ["big"]], ["get", ["big"]]]])] * int(200 * scale))
    for _ in range(int(200 * scale)):
        peer.receive()


@case("A1 notified reads and a reset")
def notified_reads(at, value, scale):
    peer = Peer(at.router)
    peer.set("nils", nils(value))
    peer.send(*[notification("get", ["nils"])] * int(5000 * scale))
    reset(peer)


@case("A1 refused batches of 1 MiB, notified ranges")
def notified_ranges(at, value, scale):
    peer = Peer(at.router)
    for n in range(100):
        peer.set(f"k{n:03}", packed(bytes(1000)))
    peer.set("mib", packed(bytes(1 << 20)))
    peer.send(*[request("batch", [[["get", ["mib"]]] * 70])] * int(20 * scale))
    peer.send(*[notification("range", [{"prefix": "k"}])] * int(20_000 * scale))
    reset(peer)


@case("A2 HEAD of a value of nils")
def head_of_nils(at, value, scale):
    Peer(at.router).set("nils", nils(value))
    head = b"HEAD /get?key=nils HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sockets = [tcp(at.http) for _ in range(4)]
    for one in sockets:
        one.sendall(head * max(1, int(3 * scale)))
    read_slowly(sockets, 10 * scale + 2, 1 << 20)


@case("A3 touches of a large value")
def touches(at, value, scale):
    peer = Peer(at.router)
    peer.set("big", packed(bytes(value)))
    peer.send(*[request("touch", ["big", 3_600_000, {"durability": "stored"}])] * 20)
    for _ in range(20):
        peer.receive()


@case("A4 changes that match nothing")
def waiting_changes(at, value, scale):
    wait = request("changes", [0, {"prefix": "nothing", "wait_ms": 60_000}])
    peers = many(2000 * scale, lambda: Peer(at.router))
    for peer in peers:
        tried(lambda: peer.send(wait))
    for peer in peers[:40]:
        tried(lambda: peer.send(*[wait] * 256))
    time.sleep(5)


@case("A5 slow readers of large replies")
def slow_readers(at, value, scale):
    Peer(at.router).set("big", packed(bytes(value)))
    peers = many(40 * scale, lambda: Peer(at.router))
    for peer in peers:
        peer.send(*[request("get", ["big"])] * 10)
    read_slowly([peer.socket for peer in peers], 20 * scale + 3, 100_000)


@case("A6 PINGs between the frames of a message")
def pings_between_frames(at, value, scale):
    part = frame(bytes(60_000), more=True) + PING
    peers = many(40, lambda: Peer(at.router))
    for peer in peers:
        peer.socket.settimeout(0.2)
    for _ in range(int(900 * scale)):
        peers = [peer for peer in peers if tried(lambda: peer.socket.sendall(part) or True)]
    time.sleep(2)


@case("A7 many subscriptions")
def subscriptions(at, value, scale):
    topics = b"".join(frame(b"\x01" + struct.pack(">I", n)) for n in range(4096))
    peers = many(2000 * scale, lambda: Peer(at.publisher, b"SUB"))
    for peer in peers:
        peer.socket.settimeout(2)
        tried(lambda: peer.socket.sendall(topics))
    time.sleep(3)


@case("A8 quiet connections to every edge", reconnects=True)
def quiet(at, value, scale):
    followers = many(4096 * scale, lambda: tcp(at.http))
    for one in followers:
        tried(lambda: one.sendall(b"GET /changes HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"))
    silent = many(4096 * scale, lambda: Peer(at.router))
    time.sleep(8)
    return followers, silent


@case("A9 unread replies")
def unread(at, value, scale):
    Peer(at.router).set("big", packed(bytes(value)))
    peers = many(200 * scale, lambda: Peer(at.router))
    for peer in peers:
        tried(lambda: peer.send(*[request("get", ["big"])] * 20))
    time.sleep(15 * scale + 3)


@case("A10 values until they are refused, in 3 GiB", address_space=3 << 30)
def fill(at, value, scale):
    peer = Peer(at.router)
    for n in range(int(4e9 * scale) // value):
        peer.set(f"fill{n}", packed(bytes(value)))
