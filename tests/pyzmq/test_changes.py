"""pyzmq and msgpack alone, following PROTOCOL.md: the change endpoint, and the proof that nothing is missing."""

import msgpack
import pytest
import zmq
from plain import BEAT, LOST, Subscription, call, connect, pack, unpack


@pytest.fixture
def dealer(context, broker):
    return connect(context, zmq.DEALER, broker.router)


def subscribe(context, broker, *prefixes, **options):
    """A subscription that is in effect."""
    subscription = Subscription(context, broker.publisher, *prefixes, **options)
    subscription.until_beat()
    return subscription


def test_a_change_is_three_frames(context, broker, dealer):
    subscription = subscribe(context, broker, b"")
    call(dealer, "set", "boat", {"oars": 2}, {"durability": "stored"})
    call(dealer, "delete", "boat")
    subscription.until_beat(2)
    assert subscription.changes == [
        (b"boat", [1, "set", 0, 1, 0, None, "stored"], msgpack.packb({"oars": 2})),
        (b"boat", [2, "delete", 0, 1, 1, None, "synced"], b""),
    ]
    assert not subscription.gaps


def test_values_are_published_byte_for_byte(context, broker, dealer):
    subscription = subscribe(context, broker, b"")
    values = [b"\xcc\x01", b"\xc0", b"\xa2\xff\xfe", b"\xc7\x00\x05"]
    for value in values:
        dealer.send(b"\x94\x00\x01\xa3set\x92\xa1v" + value)
        assert unpack(dealer.recv())[2] is None
    subscription.until_beat(len(values))
    assert [value for _, _, value in subscription.changes] == values


def test_a_subscriber_to_a_prefix_sees_every_change_under_it_in_order_and_can_prove_it(context, broker, dealer):
    subscription = subscribe(context, broker, b"user:")
    expected = []
    for n in range(3000):
        key, method = f"{('user', 'other', 'users')[n % 3]}:{n % 7}", "delete" if n % 11 == 10 else "set"
        params = [key] if method == "delete" else [key, n]
        result = call(dealer, method, *params, {"durability": "queued"})
        if key.startswith("user:") and result is not False:
            expected.append((key.encode(), method, b"" if method == "delete" else msgpack.packb(n)))
    last = call(dealer, "stats")["seq"]["applied"]
    subscription.until_beat(last)
    seen = [(topic, header[1], value) for topic, header, value in subscription.changes]
    assert seen == expected
    assert not subscription.gaps
    # The proof, stricter than the checks: prev is exactly the seq of the change before.
    headers = [header for _, header, _ in subscription.changes]
    assert [header[4] for header in headers[1:]] == [header[0] for header in headers[:-1]]


def test_a_batch_is_published_with_places_and_one_seq(context, broker, dealer):
    everything = subscribe(context, broker, b"")
    some = subscribe(context, broker, b"b", b"c")
    call(dealer, "set", "before", 0)
    call(dealer, "set_multi", [["a", 1], ["b", 2], ["a", 3], ["c", 4]])
    call(dealer, "batch", [["incr", ["n", {"initial": 1}]], ["delete", ["a"]], ["get", ["b"]], ["delete", ["none"]]])
    call(dealer, "delete_multi", ["b", "none", "c"])
    everything.until_beat(4)
    some.until_beat(4)
    headers = [(topic, *header[:5]) for topic, header, _ in everything.changes]
    assert headers == [
        (b"before", 1, "set", 0, 1, 0),
        (b"a", 2, "set", 0, 4, 1), (b"b", 2, "set", 1, 4, 2), (b"a", 2, "set", 2, 4, 2), (b"c", 2, "set", 3, 4, 2),
        (b"n", 3, "set", 0, 2, 2), (b"a", 3, "delete", 1, 2, 3),
        (b"b", 4, "delete", 0, 2, 3), (b"c", 4, "delete", 1, 2, 4),
    ]
    headers = [(topic, *header[:5]) for topic, header, _ in some.changes]
    assert headers == [
        (b"before", 1, "set", 0, 1, 0), (b"b", 2, "set", 1, 4, 1), (b"c", 2, "set", 3, 4, 2),
        (b"b", 4, "delete", 0, 2, 2), (b"c", 4, "delete", 1, 2, 4),
    ]
    assert not everything.gaps and not some.gaps


def test_commands_without_effect_are_not_published(context, broker, dealer):
    subscription = subscribe(context, broker, b"")
    call(dealer, "delete", "none")
    call(dealer, "set_multi", [])
    dealer.send(pack(0, 1, "set", ["a", 1, {"if": "present"}]))
    dealer.recv()
    dealer.send(pack(0, 1, "batch", [[["set", ["a", 1]], ["incr", ["none"]]]]))
    dealer.recv()
    assert call(dealer, "set", "a", 1) == 1
    subscription.until_beat(1)
    assert [topic for topic, _, _ in subscription.changes] == [b"a"]


def test_the_beat_comes_every_second_with_the_last_seq(context, broker, dealer):
    import time

    subscription = Subscription(context, broker.publisher)
    call(dealer, "set", "unseen", 1)
    call(dealer, "set", "unseen", 2)
    subscription.until_beat(2)
    begin = time.monotonic()
    headers = [subscription.until_beat() for _ in range(3)]
    assert 2.0 < time.monotonic() - begin < 5.0
    assert headers == [[2, "beat", 0, 0, headers[0][4], None, "memory"]] * 3
    assert not subscription.changes and not subscription.gaps


def test_a_subscriber_to_keys_only_gets_no_beat(context, broker, dealer):
    quiet = connect(context, zmq.SUB, broker.publisher)
    quiet.subscribe(b"key")
    beats = subscribe(context, broker)
    for _ in range(2):
        beats.until_beat()
    call(dealer, "set", "key", 1)
    assert quiet.recv_multipart()[0] == b"key"
    assert beats.socket.get(zmq.EVENTS) in (0, zmq.POLLIN)


def test_an_unsubscribed_prefix_is_silent_and_prev_shows_no_gap(context, broker, dealer):
    subscription = subscribe(context, broker, b"a", b"b")
    call(dealer, "set", "a", 1)
    call(dealer, "set", "b", 1)
    subscription.until_beat(2)
    subscription.socket.unsubscribe(b"a")
    subscription.until_beat()
    call(dealer, "set", "a", 2)
    call(dealer, "set", "b", 2)
    subscription.until_beat(4)
    assert [topic for topic, _, _ in subscription.changes] in ([b"a", b"b", b"b"], [b"a", b"b", b"a", b"b"])
    assert not subscription.gaps


def test_a_reconnect_shows_what_may_be_missing(context, broker, dealer):
    first = subscribe(context, broker, b"a")
    call(dealer, "set", "a1", 1)
    first.until_beat(1)
    first.socket.disconnect(broker.publisher)
    call(dealer, "set", "a2", 1)
    first.socket.connect(broker.publisher)
    first.until_beat(2)
    assert first.gaps == [(1, 2)], "the write made while it was away"
    call(dealer, "set", "a3", 1)
    first.until_beat(3)
    assert [topic for topic, _, _ in first.changes] == [b"a1", b"a3"]
    assert first.gaps == [(1, 2)]


def test_seqs_continue_after_a_restart_of_the_broker(context, start, tmp_path):
    broker = start(directory=tmp_path / "kept")
    dealer = connect(context, zmq.DEALER, broker.router)
    before = subscribe(context, broker, b"")
    call(dealer, "set", "a", 1)
    before.until_beat(1)
    assert broker.stop() == 0
    broker = start(directory=tmp_path / "kept")
    dealer = connect(context, zmq.DEALER, broker.router)
    after = subscribe(context, broker, b"")
    assert after.last == before.last == 1
    call(dealer, "set", "a", 2)
    after.until_beat(2)
    assert after.changes == [(b"a", [2, "set", 0, 1, 1, None, "synced"], b"\x02")]


def test_a_subscriber_that_does_not_read_gets_a_lost_notice(context, start):
    broker = start("--subscriber-bytes", str(8 << 20))
    dealer = connect(context, zmq.DEALER, broker.router)
    slow = subscribe(context, broker, b"", rcvhwm=1, rcvbuf=4096)
    prompt = subscribe(context, broker, b"small")
    value = b"\0" * 100_000
    for n in range(400):
        call(dealer, "set", "big", value, {"durability": "queued"})
    last = call(dealer, "set", "small", 1)
    prompt.until_beat(last)
    assert not prompt.gaps and len(prompt.changes) == 1, "the others are not disturbed"
    slow.until_beat(last)
    topics = [topic for topic, _, _ in slow.messages]
    assert LOST in topics
    assert slow.gaps
    covered = {header[0] for _, header, _ in slow.changes}
    for begin, end in slow.gaps:
        covered |= set(range(begin + 1, end + 1))
    assert covered >= set(range(1, last + 1)), "every seq was seen, or was in a reported gap"
    lost = [header for topic, header, value in slow.messages if topic == LOST]
    assert all(header[1:4] == ["lost", 0, 0] and header[5:] == [None, "memory"] for header in lost)
    place = topics.index(LOST)
    if place + 1 < len(topics) and slow.messages[place + 1][0] not in (LOST, BEAT):
        assert slow.messages[place + 1][1][4] == slow.messages[place][1][0]
