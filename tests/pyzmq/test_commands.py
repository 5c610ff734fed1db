"""pyzmq and msgpack alone, following PROTOCOL.md: the command endpoint."""

import os

import msgpack
import pytest
import zmq
from plain import call, connect, pack, refused, unpack


@pytest.fixture
def dealer(context, broker):
    return connect(context, zmq.DEALER, broker.router)


def test_a_req_socket_works_one_request_at_a_time(context, broker):
    req = connect(context, zmq.REQ, broker.router)
    assert call(req, "set", "boat", {"oars": 2}) == 1
    assert call(req, "get", "boat") == {"oars": 2}
    assert refused(req, "incr", "boat") == "NOT_A_NUMBER"
    req.send_multipart([pack(0, 1, "count", []), pack(2, "set", ["a", 1]), pack(0, 2, "count", [])])
    assert [unpack(frame) for frame in req.recv_multipart()] == [[1, 1, None, 1], [1, 2, None, 2]]


def test_a_dealer_works_with_and_without_pipelining(dealer):
    assert call(dealer, "set", "n", 0) == 1
    for id in range(1000):
        dealer.send(pack(0, id, "incr", ["n", {"durability": "queued"}]))
    for id in range(1000):
        assert unpack(dealer.recv()) == [1, id, None, id + 1]


def test_a_router_socket_as_client_works_too(context, broker):
    router = context.socket(zmq.ROUTER)
    router.rcvtimeo, router.linger = 20_000, 0
    router.setsockopt(zmq.CONNECT_ROUTING_ID, b"broker")
    router.connect(broker.router)
    router.send_multipart([b"broker", pack(0, 5, "ping", ["hello"])])
    assert router.recv_multipart()[1:] == [pack(1, 5, None, "hello")]


def test_a_thousand_requests_in_one_message(dealer):
    writes = [pack(0, id, "set", [f"key{id}", id, {"durability": "queued"}]) for id in range(500)]
    reads = [pack(0, 500 + id, "get", [f"key{id}"]) for id in range(500)]
    dealer.send_multipart(writes + reads)
    replies = [unpack(frame) for frame in dealer.recv_multipart()]
    assert replies == [[1, id, None, id + 1] for id in range(500)] + [[1, 500 + id, None, id] for id in range(500)]


def test_a_value_of_ten_megabytes(dealer, broker, start):
    value = os.urandom(10_000_000)
    assert call(dealer, "set", "big", value) == 1
    assert call(dealer, "get", "big") == value
    assert broker.stop() == 0


def test_str_and_bin_keys_are_equal(dealer):
    assert call(dealer, "set", "lake", 1) == 1
    assert call(dealer, "get", b"lake") == 1
    assert call(dealer, "set", b"lake", 2) == 2
    assert call(dealer, "get", "lake") == 2
    assert call(dealer, "count") == 1
    assert call(dealer, "range", {"keys_only": True}) == [["lake"], None]


def every_type():
    """A value of every MessagePack type, in every width, made by the library where it can."""
    yield from (None, True, False, 0, 127, -1, -32, 128, 2**16 - 1, 2**16, 2**32, 2**64 - 1)
    yield from (-128, -(2**15), -(2**31), -(2**63))
    yield from (0.1, float("inf"), float("nan"), -0.0)
    yield from ("", "a" * 31, "a" * 32, "a" * 256, "a" * 65536, "væ\0tn")
    yield from (b"", b"\xff" * 255, b"\0" * 256, b"\0" * 65536)
    yield from ([], [1] * 16, [None] * 65536, {}, {str(n): n for n in range(16)}, {n: [n] for n in range(65536)})
    yield from (msgpack.ExtType(5, b"x" * size) for size in (0, 1, 2, 4, 8, 16, 17, 256, 65536))
    yield from (msgpack.Timestamp(1, 0), msgpack.Timestamp(2**34 - 1, 999_999_999), msgpack.Timestamp(-1, 0))


def test_a_value_of_every_messagepack_type_comes_back_byte_for_byte(dealer):
    packed = [msgpack.packb(value) for value in every_type()]
    packed += [msgpack.packb(1.5, use_single_float=True), b"\xd9\x01a", b"\xcf" + bytes(7) + b"\x01", b"\xdf\0\0\0\0"]
    heads = {value[0] for value in packed}
    widths = {0xC0, 0xC2, 0xC3, *range(0xC4, 0xE0)}
    assert widths <= heads, f"not tried: {[hex(head) for head in widths - heads]}"
    for value in packed:
        head = pack(0, 1, "set", ["v"])
        # The params array has two elements now: the key, and the value's bytes unchanged.
        dealer.send(head.replace(b"\x91\xa1v", b"\x92\xa1v") + value)
        assert unpack(dealer.recv())[2] is None
        dealer.send(pack(0, 2, "get", ["v"]))
        assert dealer.recv() == b"\x94\x01\x02\xc0" + value


def test_the_values_survive_a_restart_byte_for_byte(context, start, tmp_path):
    values = [b"\xcf" + bytes(8), b"\xc7\x00\x05", b"\xa2\xff\xfe", b"\xc0", msgpack.packb({"a": [1, 2.5]})]
    broker = start(directory=tmp_path / "kept")
    dealer = connect(context, zmq.DEALER, broker.router)
    for n, value in enumerate(values):
        dealer.send(b"\x94\x00\x01\xa3set\x92" + msgpack.packb(n.to_bytes(1, "big")) + value)
        assert unpack(dealer.recv())[2] is None
    assert broker.stop() == 0
    dealer = connect(context, zmq.DEALER, start(directory=tmp_path / "kept").router)
    for n, value in enumerate(values):
        dealer.send(pack(0, 1, "get", [n.to_bytes(1, "big")]))
        assert dealer.recv() == b"\x94\x01\x01\xc0" + value
    assert call(dealer, "set", "next", 1) == len(values) + 1, "an orderly stop leaves no gap"


def test_two_clients_with_one_identity_are_two_clients(context, broker):
    one = connect(context, zmq.DEALER, broker.router, routing_id=b"same")
    two = connect(context, zmq.DEALER, broker.router, routing_id=b"same")
    for n in range(100):
        one.send(pack(0, n, "ping", ["one"]))
        two.send(pack(0, n, "ping", ["two"]))
    for n in range(100):
        assert unpack(one.recv()) == [1, n, None, "one"]
        assert unpack(two.recv()) == [1, n, None, "two"]


def test_nothing_a_client_sends_disturbs_another(context, broker):
    good = connect(context, zmq.DEALER, broker.router)
    bad = connect(context, zmq.DEALER, broker.router)
    for garbage in (b"\xc1", b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff" * 20, os.urandom(10_000)):
        bad.send(b"\x94\x00\x01\xa3set\x92\xa1k" + garbage)
        bad.send(garbage)
        assert call(good, "ping", "well") == "well"
    assert call(good, "get", "k") is None


def test_hello_has_the_members_of_the_protocol(dealer):
    hello = call(dealer, "hello", {"client": "pyzmq tests"})
    assert (hello["server"], hello["protocol"], hello["seq"]) == ("vatn", 1, 0)
    assert len(bytes.fromhex(hello["store_id"])) == 16
    assert hello["limits"]["key_bytes"] == 32_768 and hello["limits"]["depth"] == 64
    names = {"message_bytes", "frames", "in_flight", "unread_bytes", "range_items", "range_bytes"}
    names |= {"command_items", "write_bytes"}
    assert names <= hello["limits"].keys()
    assert all(isinstance(limit, int) and limit > 0 for limit in hello["limits"].values())
    assert isinstance(hello["version"], str) and isinstance(hello["features"], list)


def test_stats_has_the_members_of_the_protocol(dealer, broker):
    call(dealer, "set_multi", [["a", 1], ["b", 2]])
    for refused in (pack(2, "fly", []), pack(2, "set", ["a", 1, {"if": "absent"}]), b"\x91\x02", b"\x93\x02\xa3set\xc1"):
        dealer.send(refused)
    dealer.send(pack(2, "ping", []))
    stats = call(dealer, "stats")
    names = {"status", "version", "store_id", "uptime_ms", "seq", "write_queue", "items", "disk_bytes", "connections",
             "subscribers", "commands", "notifications_refused", "durability", "storage"}
    assert names <= stats.keys(), names - stats.keys()
    assert (stats["items"], stats["durability"], stats["storage"]) == (2, "synced", "ok")
    assert stats["notifications_refused"] == 4
    assert stats["seq"]["applied"] == stats["seq"]["synced"] == 1
    assert {"stored", "checkpointed"} <= stats["seq"].keys()
    assert {"items", "bytes", "max_items", "max_bytes"} <= stats["write_queue"].keys()
    assert stats["status"].endswith("items in storage memory") and " bytes :: " in stats["status"]
    assert call(dealer, "flush").endswith(":: 0 items in queue :: 2 items in storage memory")
    assert call(dealer, "stats")["seq"]["checkpointed"] == 1


def test_the_pages_of_a_range_join_to_the_whole(dealer):
    keys = sorted(os.urandom(3).hex() for _ in range(2000))
    keys = sorted(set(keys))
    call(dealer, "set_multi", [[key, None] for key in keys])
    for reverse in (False, True):
        seen, options = [], {"limit": 77, "keys_only": True, "reverse": reverse}
        while True:
            page, after = call(dealer, "range", options)
            seen += page
            if after is None:
                break
            assert after == page[-1]
            options["after"] = after
        assert seen == sorted(keys, reverse=reverse)


def test_a_page_is_bounded_in_bytes_and_has_one_item_at_least(dealer):
    limit = call(dealer, "hello")["limits"]["range_bytes"]
    call(dealer, "set", "a", b"\0" * (limit + 1))
    call(dealer, "set", "b", 1)
    page, after = call(dealer, "range")
    assert (len(page), after) == (1, "a")
    assert call(dealer, "range", {"after": after}) == [[["b", 1]], None]


def test_replies_due_at_once_are_sent_at_once(dealer):
    import time

    call(dealer, "set", "a", 1)
    call(dealer, "flush")
    begin = time.monotonic()
    for _ in range(20):
        call(dealer, "flush")
        assert call(dealer, "wait", 1, "synced") is True
    assert time.monotonic() - begin < 5, "each waited for something that had happened already"
