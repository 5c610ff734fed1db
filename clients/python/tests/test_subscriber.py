"""The subscriber against a real broker."""

import socket
import threading
import time

import pytest
import vatn
import zmq
from vatn import Client, Missed, Subscriber, wire
from vatn.subscriber import BEAT

from broker import Broker
from relay import Relay


class OneStore:
    """The store of a forged client."""

    store = "0" * 32

    def hello(self):
        return {"store_id": self.store}


@pytest.fixture
def subscriber(client, shared):
    with Subscriber(shared.publisher, "a") as subscriber:
        yield subscriber


def test_changes_come_in_order_once_the_subscriber_is_made(client, subscriber):
    first = client.set("a1", {"x": 1}, durability="stored")
    client.set("b1", 1)
    client.set_multi({"a2": 2, "b2": 2})
    last = client.delete("a1") and client.hello()["seq"]
    changes = list(subscriber.until(last))
    assert changes == [
        vatn.Change("a1", "set", {"x": 1}, first, 0, 1, None, "stored"),
        vatn.Change("a2", "set", 2, first + 2, 0, 2, None, "synced"),
        vatn.Change("a1", "delete", None, first + 3, 0, 1, None, "synced"),
    ]
    assert subscriber.last == last


def apply(copy, change):
    """A copy of the store applies a change: of a touch it takes the time alone."""
    if change.op == "set":
        copy[change.key] = [change.value, change.ttl_ms is not None]
    elif change.op == "touch":
        copy[change.key][1] = change.ttl_ms is not None
    else:
        del copy[change.key]


def test_a_copy_that_takes_only_the_time_of_a_touch_is_equal_to_the_store(client, subscriber):
    first = client.hello()["seq"]
    client.set_multi({f"a{n}": n for n in range(9)})
    client.set("a0", [0], ttl_ms=3_600_000)
    assert client.touch("a0", None) and client.touch("a1", 3_600_000)
    assert client.delete_range(prefix="a", after="a2", limit=2) == (2, "a4")
    with client.atomic() as block:
        block.touch("a5", 3_600_000)
        block.delete_range(from_="a6", to="a8")
    last = client.hello()["seq"]
    store = {}
    for key in client.scan(prefix="a", keys_only=True):
        entry = client.get(key, meta=True)
        store[key] = [entry.value, entry.ttl_ms is not None]
    assert list(store) == ["a0", "a1", "a2", "a5", "a8"]
    for changes in (subscriber.until(last), client.changes(first, prefix="a").changes):
        copy = {}
        for change in changes:
            apply(copy, change)
        assert copy == store


def test_several_prefixes_and_none(client, shared):
    with Subscriber(shared.publisher) as everything, Subscriber(shared.publisher, "x", b"y") as some:
        for key in "wxyz":
            last = client.set(key, key)
        assert [change.key for change in everything.until(last)] == ["w", "x", "y", "z"]
        assert [change.key for change in some.until(last)] == ["x", "y"]


def test_take_waits_for_a_change_until_its_timeout(client, subscriber):
    assert subscriber.take(0.05) is None
    client.set("a", 1)
    assert subscriber.take(10).key == "a"
    client.set("a", 2)
    assert next(subscriber).value == 2


def test_many_changes_none_missing(client, subscriber):
    with client.pipeline() as pipeline:
        replies = [pipeline.set(f"{'ab'[n % 2]}{n}", n, durability="queued") for n in range(20_000)]
    last = replies[-1].result
    assert [change.value for change in subscriber.until(last)] == list(range(0, 20_000, 2))


def test_a_reconnect_that_may_have_missed_changes_raises_missed_and_continues(client, shared, subscriber):
    before = client.set("a", 1)
    assert [change.value for change in subscriber.until(before)] == [1]
    subscriber._feed._socket.disconnect(shared.publisher)
    missed = client.set("a", 2)
    subscriber._feed._socket.connect(shared.publisher)
    with pytest.raises(Missed) as caught:
        list(subscriber.until(missed))
    assert (caught.value.after, caught.value.up_to) == (before, missed)
    last = client.set("a", 3)
    assert [change.value for change in subscriber.until(last)] == [3]


def test_missed_changes_are_fetched_with_a_client(client, shared):
    with Subscriber(shared.publisher, "a", "b", client=client) as subscriber:
        before = client.set("a", 1)
        assert [change.value for change in subscriber.until(before)] == [1]
        subscriber._feed._socket.disconnect(shared.publisher)
        client.set_multi({"a": 2, "c": 0, "b": 3})
        client.delete("a")
        subscriber._feed._socket.connect(shared.publisher)
        last = client.set("a", 4)
        changes = list(subscriber.until(last))
        assert [(change.op, change.value) for change in changes] == [
            ("set", 2), ("set", 3), ("delete", None), ("set", 4)
        ]
        assert [change.seq - before for change in changes] == [1, 1, 2, 3]


def test_past_changes_come_first_with_after(client, shared):
    first = client.set("a", 0)
    with client.pipeline() as pipeline:
        for n in range(1, 500):
            pipeline.set("ab"[n % 2], n)
    with Subscriber(shared.publisher, "a", client=client, after=first) as subscriber:
        last = client.set("a", 500)
        assert [change.value for change in subscriber.until(last)] == list(range(2, 501, 2))


def test_missed_is_raised_where_fetching_fails(forged):
    class Forgetful(OneStore):
        def changes(self, after, **_):
            raise vatn.Compacted("COMPACTED", "gone", {"first": 15})

    subscriber, publisher = forged
    subscriber._client, subscriber._store = Forgetful(), OneStore.store
    publisher.send(b"a", 20, "set", 17, b"\x01")
    with pytest.raises(Missed) as caught:
        next(subscriber)
    assert (caught.value.after, caught.value.up_to, caught.value.__cause__.first) == (10, 17, 15)
    assert next(subscriber).seq == 20


def test_half_a_write_is_completed_without_repeats(forged):
    class Remembering(OneStore):
        def changes(self, after, **_):
            assert after == 10, "the write that may have more is read again"
            return vatn.History(
                [vatn.Change("a", "set", n, seq, index, 2, None, "synced")
                 for n, (seq, index) in enumerate([(11, 0), (11, 1), (13, 0), (13, 1), (14, 0)])], 14
            )

    subscriber, publisher = forged
    subscriber._client, subscriber._store = Remembering(), OneStore.store
    publisher.send(b"a", 11, "set", 10, b"\x00", place=(0, 2))
    publisher.send(b"a", 14, "set", 13, b"\x05")
    assert [(change.seq, change.value) for change in subscriber.until(14)] == [
        (11, 0), (11, 1), (13, 2), (13, 3), (14, 5)
    ]


def test_frames_left_after_a_signal_are_not_taken_for_a_message(forged, monkeypatch):
    subscriber, publisher = forged
    recv = zmq.Socket.recv
    received = []

    def interrupted(self, *args, **options):
        if len(received) == 1 and self is subscriber._feed._socket:
            received.append(None)
            raise KeyboardInterrupt
        frame = recv(self, *args, **options)
        if self is subscriber._feed._socket:
            received.append(frame)
        return frame

    publisher.send(b"a", 11, "set", 10, b"\x01")
    publisher.send(b"a", 12, "set", 11, b"\x02")
    monkeypatch.setattr(zmq.Socket, "recv", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(subscriber)
    monkeypatch.undo()
    with pytest.raises(Missed) as caught:
        next(subscriber)
    assert (caught.value.after, caught.value.up_to) == (10, 11)
    assert next(subscriber).seq == 12


def test_silence_is_reported_with_the_endpoint():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(vatn.Timeout, match=endpoint):
            Subscriber(endpoint, patience=0.2)


def test_a_silently_broken_connection_is_replaced(shared, client, monkeypatch):
    monkeypatch.setattr("vatn.feed.SILENCE", 2.0)
    relay = Relay(shared.publisher)
    with Subscriber(relay.endpoint, "a", patience=1.5) as subscriber:
        seq = client.set("a", 1)
        assert [change.seq for change in subscriber.until(seq)] == [seq]
        relay.mute()
        missed = client.set("a", 2)
        with pytest.raises(vatn.Timeout):
            next(subscriber)
        until = time.monotonic() + 20
        with pytest.raises(Missed) as caught:
            while time.monotonic() < until:
                try:
                    next(subscriber)
                except vatn.Timeout:
                    pass
        assert (caught.value.after, caught.value.up_to) == (seq, missed)
    relay.close()


class Clock:
    """A feed's clock for `time`: it advances only as a test says."""

    now = 0.0

    def monotonic(self):
        return self.now


class Polls:
    """A feed's poller: each poll does `step` with the milliseconds that it may wait."""

    def __init__(self, step):
        self.poll = step


def test_messages_received_while_the_process_was_stopped_are_read_before_a_reconnect(forged, monkeypatch):
    subscriber, publisher = forged
    clock, feed = Clock(), subscriber._feed
    monkeypatch.setattr("vatn.feed.time", clock)

    def stand_still(_):
        clock.now += 60
        publisher.send(b"a", 11, "set", 10, b"\x01")

    monkeypatch.setattr(feed, "_poller", Polls(stand_still))
    assert next(subscriber).seq == 11
    assert feed.connections() == 1


def test_the_wait_doubles_after_each_silence_until_a_message_comes(forged, monkeypatch):
    subscriber, publisher = forged
    clock, feed, waits = Clock(), subscriber._feed, []
    monkeypatch.setattr("vatn.feed.time", clock)
    monkeypatch.setattr("vatn.feed.LAST_LOOK_MS", 0, raising=False)

    def wait(ms):
        waits.append(ms / 1000)
        clock.now += ms / 1000

    monkeypatch.setattr(feed, "_poller", Polls(wait))
    for cut_or_made in ("disconnect", "connect"):
        monkeypatch.setattr(zmq.Socket, cut_or_made, lambda *_: None)
    silences = [5, 10, 20, 40, 80, 160, 320, 320]
    assert feed.next(sum(silences)) is None
    assert waits == silences
    waits.clear()
    publisher.send(b"a", 11, "set", 10, b"\x01")
    assert feed._socket.poll(10_000)
    assert next(subscriber).seq == 11
    assert feed.next(clock.now + 5) is None
    assert waits == [5]


def test_closing_twice_is_allowed(shared):
    with Subscriber(shared.publisher) as subscriber:
        subscriber.close()
        subscriber.close()


class Forged:
    """A publisher that sends the messages of a test, and a subscriber to it."""

    def __init__(self, *prefixes, first, **options):
        self.context = zmq.Context()
        self.publisher = self.context.socket(zmq.XPUB)
        self.publisher.linger = 0
        self.publisher.xpub_verbose = True
        self.relay = Relay(f"tcp://127.0.0.1:{self.publisher.bind_to_random_port('tcp://127.0.0.1')}")
        self.subscriber = None
        self._is_made = False
        sending = threading.Thread(target=self._send_first, args=(first,))
        sending.start()
        try:
            self.subscriber = Subscriber(self.relay.endpoint, *prefixes, context=self.context, **options)
        except vatn.VatnError:
            self._end_of(sending)
            self.close()
            raise
        self._end_of(sending)

    def send(self, topic, seq, op, prev, value=b"", place=(0, 1)):
        self.publisher.send_multipart([topic, wire.pack([seq, op, *place, prev, None, "synced"]), value])

    def reconnect(self):
        """Cuts the connection, and waits until the next one has its subscriptions."""
        self.relay.cut()
        self._await_subscriptions()

    def close(self):
        if self.subscriber:
            self.subscriber.close()
        self.relay.close()
        self.publisher.close()
        self.context.term()

    def _end_of(self, sending):
        self._is_made = True
        sending.join()

    def _send_first(self, first):
        self._await_subscriptions()
        if callable(first):
            while not self._is_made:
                first(self)
        else:
            self.send(*first)

    def _await_subscriptions(self):
        until = time.monotonic() + 10
        while not self.publisher.poll(10) or self.publisher.recv() != b"\x01" + BEAT:
            assert time.monotonic() < until
            # libzmq sends subscriptions again when the socket is used.
            assert self.subscriber is None or self.subscriber._feed._socket.events is not None


@pytest.fixture
def forged():
    """A subscriber that has received its first beat at seq 10, and its publisher."""
    forged = Forged("a", first=(BEAT, 10, "beat", 10))
    yield forged.subscriber, forged
    forged.close()


class Paged(OneStore):
    """A client whose broker holds the writes 1 to `count`, one to a page."""

    def __init__(self, count):
        self.count = count
        self.requested = []

    def changes(self, after, **_):
        self.requested.append(after)
        return vatn.History([vatn.Change("a", "set", None, after + 1, 0, 1, None, "synced")], after + 1)


def test_a_subscriber_is_made_with_the_first_message_even_without_a_beat(request):
    forged = Forged("a", first=(b"a", 11, "set", 10, b"\x01"))
    request.addfinalizer(forged.close)
    forged.send(b"a", 12, "set", 11, b"\x02")
    assert [next(forged.subscriber).seq, next(forged.subscriber).seq] == [11, 12]


def test_past_changes_are_fetched_page_by_page_as_they_are_taken(request):
    client = Paged(10)
    forged = Forged("a", first=(b"a", 11, "set", 10, b"\x01"), client=client, after=0)
    request.addfinalizer(forged.close)
    assert client.requested == []
    assert [next(forged.subscriber).seq for _ in range(3)] == [1, 2, 3]
    assert client.requested == [0, 1, 2]
    assert [change.seq for change in forged.subscriber.until(11)] == list(range(4, 12))


def test_messages_before_the_first_beat_are_dropped_with_several_prefixes(request):
    def changes_and_then_a_beat(forged):
        forged.send(b"a", 11, "set", 10, b"\x01")
        forged.send(b"b", 12, "set", 11, b"\x01")
        forged.send(BEAT, 13, "beat", 12)
        forged._is_made = True

    client = Paged(13)
    forged = Forged("a", "b", first=changes_and_then_a_beat, client=client, after=9)
    request.addfinalizer(forged.close)
    assert not forged.subscriber._ready
    forged.send(b"b", 14, "set", 12, b"\x01")
    assert [change.seq for change in forged.subscriber.until(14)] == [10, 11, 12, 13, 14]


def test_several_prefixes_without_a_beat_time_out():
    sent = iter(range(11, 1 << 30))

    def change_without_end(forged):
        seq = next(sent)
        forged.send(b"a", seq, "set", seq - 1, b"\x01")

    with pytest.raises(vatn.Timeout, match="no beat|nothing received"):
        Forged("a", "b", first=change_without_end, patience=0.5)


def test_seq_and_prev_are_checked(forged):
    subscriber, publisher = forged
    publisher.send(b"a", 12, "set", 10, b"\x01")
    publisher.send(BEAT, 15, "beat", 12)
    publisher.send(b"a", 16, "set", 12, b"\x02", place=(0, 3))
    publisher.send(b"a", 16, "delete", 16, place=(1, 3))
    publisher.send(BEAT, 16, "beat", 16)
    assert [(change.seq, change.op) for change in subscriber.until(16)] == [(12, "set"), (16, "set"), (16, "delete")]
    assert subscriber.last == 16


def test_a_write_is_whole_only_after_its_last_change(forged):
    subscriber, publisher = forged
    publisher.send(b"a", 11, "set", 10, b"\x01", place=(0, 2))
    assert (next(subscriber).seq, subscriber.last) == (11, 10)
    publisher.send(b"a", 11, "set", 11, b"\x02", place=(1, 2))
    assert (next(subscriber).seq, subscriber.last) == (11, 11)


@pytest.mark.parametrize("begun_before", [True, False])
def test_the_rest_of_a_write_lost_with_a_connection_is_missed_without_a_gap(forged, begun_before):
    subscriber, publisher = forged
    publisher.send(b"a", 11, "set", 10, b"\x01", place=(0, 3))
    assert subscriber._feed._socket.poll(10_000)
    if begun_before:
        assert next(subscriber).seq == 11
    publisher.reconnect()
    publisher.send(BEAT, 11, "beat", 11)
    if not begun_before:
        assert next(subscriber).seq == 11
    with pytest.raises(Missed) as caught:
        next(subscriber)
    assert (caught.value.after, caught.value.up_to) == (10, 11)
    # Once, and only that write.
    publisher.send(b"a", 12, "set", 11, b"\x02")
    assert next(subscriber).seq == 12


def test_the_rest_of_a_write_lost_with_a_connection_is_fetched_with_a_client(forged):
    class Remembering(OneStore):
        def changes(self, after, **_):
            assert after == 10
            return vatn.History([vatn.Change("a", "set", n, 11, n, 3, None, "synced") for n in range(3)], 11)

    subscriber, publisher = forged
    subscriber._client, subscriber._store = Remembering(), OneStore.store
    publisher.send(b"a", 11, "set", 10, b"\x00", place=(0, 3))
    assert next(subscriber).value == 0
    publisher.reconnect()
    publisher.send(b"a", 12, "set", 11, b"\x03")
    assert [(change.seq, change.value) for change in subscriber.until(12)] == [(11, 1), (11, 2), (12, 3)]


def test_a_write_with_changes_outside_the_prefixes_is_whole_over_one_connection(forged):
    subscriber, publisher = forged
    publisher.reconnect()
    # Nothing is left of the connection before.
    assert subscriber.take(0) is None
    publisher.send(BEAT, 10, "beat", 10)
    publisher.send(b"a", 11, "set", 10, b"\x01", place=(0, 3))
    publisher.send(b"a", 12, "set", 11, b"\x02", place=(0, 2))
    assert [next(subscriber).seq, next(subscriber).seq] == [11, 12]
    assert subscriber.last == 11
    publisher.send(BEAT, 12, "beat", 12)
    assert list(subscriber.until(12)) == [] and subscriber.last == 12


def test_a_gap_in_prev_is_raised_once_and_before_the_change(forged):
    subscriber, publisher = forged
    publisher.send(b"a", 20, "set", 17, b"\x01")
    publisher.send(b"a", 21, "set", 20, b"\x02")
    with pytest.raises(Missed) as caught:
        next(subscriber)
    assert (caught.value.after, caught.value.up_to) == (10, 17)
    assert [change.seq for change in subscriber.until(21)] == [20, 21]


def test_lost_is_raised(forged):
    subscriber, publisher = forged
    publisher.send(b"a", 11, "set", 10, b"\x01")
    topic = b"a"  # the forged publisher filters; a broker sends `lost` under its own topic to everybody
    publisher.send(topic, 30, "lost", 11)
    publisher.send(b"a", 31, "set", 30, b"\x02")
    assert next(subscriber).seq == 11
    with pytest.raises(Missed) as caught:
        next(subscriber)
    assert (caught.value.after, caught.value.up_to) == (11, 30)
    assert next(subscriber).seq == 31


def test_another_history_is_raised(forged):
    subscriber, publisher = forged
    publisher.send(b"a", 3, "set", 2, b"\x01")
    with pytest.raises(Missed):
        next(subscriber)
    assert next(subscriber).seq == 3


@pytest.mark.parametrize("before", ["change", "beat", "quiet"])
def test_another_history_that_is_behind_only_at_first_is_raised(forged, before):
    subscriber, publisher = forged
    if before == "quiet":
        publisher.send(BEAT, 1000, "beat", 10)
        assert list(subscriber.until(1000)) == []
    else:
        publisher.send(b"a", 1000, "set", 10, b"\x01")
        assert next(subscriber).seq == 1000
    if before == "beat":
        publisher.send(BEAT, 1002, "beat", 1000)
        publisher.send(b"a", 1003, "set", 1000, b"\x02")
        assert next(subscriber).seq == 1003
    publisher.reconnect()
    publisher.send(b"a", 1005, "set", 950, b"\x03")
    with pytest.raises(Missed) as caught:
        next(subscriber)
    assert (caught.value.after, caught.value.up_to) == (0, 950)
    publisher.send(b"a", 1006, "set", 1005, b"\x04")
    assert [change.seq for change in subscriber.until(1006)] == [1005, 1006]


def test_a_beat_behind_fetched_changes_is_no_other_history(forged):
    client = Paged(40)
    subscriber, publisher = forged
    subscriber._client, subscriber._store = client, OneStore.store
    publisher.send(b"a", 11, "set", 10, b"\x01")
    publisher.send(BEAT, 15, "beat", 11)
    publisher.send(b"a", 20, "lost", 11)
    publisher.send(BEAT, 23, "beat", 20)
    publisher.send(b"a", 24, "set", 20, b"\x02", place=(0, 2))
    publisher.send(b"a", 24, "set", 24, b"\x03", place=(1, 2))
    assert [change.seq for change in subscriber.until(24)] == [11, *range(16, 21), 24, 24]


def test_a_replaced_store_with_higher_seqs_is_another_history(tmp_path):
    def write(client, count):
        with client.pipeline() as pipeline:
            for n in range(count):
                pipeline.set("a", n)

    def put_aside(broker):
        broker.stop()
        (tmp_path / "store").rename(tmp_path / "old")

    broker = Broker(tmp_path / "store")
    client = Client(broker.router, timeout=20)
    relay = Relay(broker.publisher)
    with client, Subscriber(relay.endpoint, "a", client=client) as subscriber:
        write(client, 10)
        assert [change.seq for change in subscriber.until(10)] == list(range(1, 11))
        put_aside(broker)
        broker = Broker(tmp_path / "store", again=broker)
        try:
            write(client, 16)
            with pytest.raises(Missed) as caught:
                next(subscriber)
            assert caught.value.after == 0 and 10 < caught.value.up_to <= 16
            # From then on it is this history, and its missed changes can be fetched.
            assert all(change.seq > 10 for change in subscriber.until(16))
            for last in (20, 24, 28):
                client.ping()
                relay.cut()
                write(client, 4)
                try:
                    assert [change.seq for change in subscriber.until(last)] == list(range(last - 3, last + 1))
                    break
                except Missed as again:
                    # Where the connection was made anew meanwhile, the next gap raises the new history once more.
                    assert again.after == 0 and last < 28
        finally:
            broker.kill()
    relay.close()


def test_a_subscriber_of_a_broker_that_restarts_goes_on(start):
    broker = start()
    publisher = broker.publisher
    with Subscriber(publisher, patience=20) as subscriber:
        with Client(broker.router) as client:
            seq = client.set("a", 1)
        assert [change.seq for change in subscriber.until(seq)] == [seq]
        assert broker.stop() == 0
        broker = start("--publisher", publisher)
        # A beat first, so that the subscription is in effect again before the write.
        with Subscriber(publisher), Client(broker.router) as client:
            subscriber.take(1.5)
            seq = client.set("a", 2)
            assert [change.seq for change in subscriber.until(seq)] == [seq]
