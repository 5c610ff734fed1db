"""The client against a real broker."""

import socket
import threading
import time

import msgpack
import pytest
import vatn
import zmq
from vatn import Client

from relay import Relay


def test_every_command_returns_its_documented_result(client):
    base = client.hello()["seq"]
    assert client.ping({"a": 1}) == {"a": 1}
    assert client.set("boat", {"oars": 2}) == base + 1
    assert client.get("boat") == {"oars": 2}
    assert client.get("boat", meta=True) == vatn.Entry({"oars": 2}, base + 1, None, "synced")
    assert client.get("none") is None and client.get("none", meta=True) is None
    assert client.set_multi({"a": 1, "b": 2}, durability="stored", key_prefix="p:") == base + 2
    assert client.set_multi([("x", 1), ("x", 2)]) == base + 3
    assert client.get_multi(["x", "none", "p:a"]) == {"x": 2, "p:a": 1}
    assert client.delete("x") is True and client.delete("x") is False
    assert client.delete("p:a", return_value=True) == 1
    assert client.delete_multi(["p:b", "none"]) == 1
    client.set_multi({"r:1": 1, "r:2": 2, "r:3": 3})
    assert client.delete_range(prefix="r:", limit=2) == vatn.Deleted(2, "r:2")
    assert client.delete_range(prefix="r:", limit=2, after="r:2", durability="queued") == (1, None)
    with pytest.raises(vatn.BadArgument):
        client.delete_range(limit=1)
    assert client.append("log", "ebb, ") == 5
    assert client.append("log", "flood", durability="stored") == 10
    assert client.get("log") == "ebb, flood"
    assert client.append("log", b"\xff", ttl_ms=60_000) == 11
    assert client.get("log") == b"ebb, flood\xff"
    assert client.delete("log") is True
    assert client.incr("n", initial=5) == 5
    assert client.incr("n", delta=2) == 7
    assert client.decr("n") == 6
    assert client.range() == vatn.Page([("boat", {"oars": 2}), ("n", 6)], None)
    assert client.range(keys_only=True, limit=1) == vatn.Page(["boat"], "boat")
    assert client.range(from_="c", to="o", reverse=True, keys_only=True).items == ["n"]
    assert client.count() == 2 and client.count(prefix="bo") == 1
    assert client.batch([("incr", ["n"]), ("get", ["n"])], durability="stored") == [7, 7]
    assert client.flush().endswith("0 items in queue :: 2 items in storage memory")
    assert client.stats()["items"] == 2
    assert client.server["protocol"] == 1


def test_times_to_live(client):
    client.set("short", 1, ttl_ms=60_000)
    assert 0 < client.get("short", meta=True).ttl_ms <= 60_000
    assert client.set("short", 2, expires_at_ms=2**60, return_value=True) == 1
    assert client.touch("short", None, expires_at_ms=2**61) is True
    assert client.set("over", 1, expires_at_ms=1) == client.hello()["seq"]
    assert client.get("over") is None
    with pytest.raises(vatn.BadArgument):
        client.incr("n", ttl_ms=1, expires_at_ms=2**60)
    assert client.touch("short", None) is True
    assert client.get("short", meta=True).ttl_ms is None


def test_waiting_for_a_level(client):
    assert client.wait(client.set("a", 1, durability="queued"), "synced") is True
    assert client.wait(2**63, "memory", timeout_ms=1) is False


def test_the_history(client):
    first = client.set("a", [1], ttl_ms=60_000)
    last = client.delete_multi(["a"]) and client.set("b", 2)
    changes, end = client.changes(first - 1, prefix="a")
    assert changes == [
        vatn.Change("a", "set", [1], first, 0, 1, 60_000, "synced"),
        vatn.Change("a", "delete", None, first + 1, 0, 1, None, "synced"),
    ]
    assert end == last
    assert client.changes(first - 1, limit=1) == (changes[:1], first)
    assert client.changes(last, wait_ms=50) == ([], last)


def test_values_come_back_equal(client):
    values = [None, True, -1, 2**64 - 1, -(2**63), 0.5, "væ", b"\0\xff", [1, [2]], {"a": {"b": 1}}, {1: "one"}]
    values += [msgpack.ExtType(5, b"x"), msgpack.Timestamp(1, 2)]
    for value in values:
        client.set("v", value)
        assert client.get("v") == value
    assert client.get("v", meta=True).value == values[-1]


def test_keys_are_bytes_and_come_back_as_text_where_they_can(client):
    client.set_multi([(b"text", 1), (b"\xfe\x00", 2)])
    assert client.get("text") == 1
    assert client.range(keys_only=True).items == ["text", b"\xfe\x00"]


def test_a_str_that_is_not_utf8_comes_back_unchanged(client):
    with client.atomic() as block:
        block.set("odd", "\udcff")
    assert client.get("odd") == "\udcff"


def test_errors_are_classes_with_details(client):
    seq = client.set("a", "text")
    with pytest.raises(vatn.Conflict) as caught:
        client.set("a", 1, if_="absent")
    assert caught.value.seq == seq
    with pytest.raises(vatn.Conflict) as caught:
        client.delete("none", if_="present")
    assert caught.value.seq is None
    with pytest.raises(vatn.NotANumber):
        client.incr("a")
    with pytest.raises(vatn.NotFound):
        client.incr("none")
    with pytest.raises(vatn.BadKey):
        client.get(b"\xff")
    with pytest.raises(vatn.BadArgument) as caught:
        client.set("a", 1, durability="fast")
    assert caught.value.details["argument"] == "durability"
    with pytest.raises(vatn.CommandError) as caught:
        client.batch([("get", ["a"]), ("incr", ["a"])])
    assert (caught.value.code, caught.value.index) == ("NOT_A_NUMBER", 1)


def test_a_condition_by_seq(client):
    seq = client.set("a", 1)
    assert client.set("a", 2, if_=seq) > seq
    with pytest.raises(vatn.Conflict):
        client.set("a", 3, if_=seq)


def test_scan_walks_all_pages_in_both_directions(client):
    keys = [f"k{n:04}" for n in range(1000)]
    client.set_multi([(key, n) for n, key in enumerate(keys)])
    client.set("other", 1)
    assert list(client.scan(prefix="k", keys_only=True, page=99)) == keys
    assert list(client.scan(prefix="k", keys_only=True, page=99, reverse=True)) == keys[::-1]
    assert list(client.scan(from_="k0998")) == [("k0998", 998), ("k0999", 999), ("other", 1)]


def test_a_pipeline_answers_each_command(client):
    with client.pipeline() as pipeline:
        writes = [pipeline.set(f"k{n}", n, durability="queued") for n in range(5000)]
        reads = [pipeline.get(f"k{n}") for n in range(5000)]
        with pytest.raises(vatn.VatnError):
            reads[0].result
    assert [reply.result for reply in reads] == list(range(5000))
    assert writes[-1].result == writes[0].result + 4999


def test_a_pipeline_raises_the_first_refusal_after_all_are_done(client):
    with pytest.raises(vatn.NotFound):
        with client.pipeline() as pipeline:
            first = pipeline.incr("none")
            second = pipeline.set("a", 1)
    assert isinstance(first.error, vatn.NotFound) and second.result > 0
    assert client.get("a") == 1


def test_a_pipeline_larger_than_all_buffers_does_not_stall(client):
    value = bytes(100_000)
    with client.pipeline() as pipeline:
        for n in range(300):
            pipeline.set("big", value, durability="memory")
            pipeline.get("big")


def test_a_block_that_raises_sends_nothing(client):
    for block in (client.pipeline(), client.atomic()):
        with pytest.raises(KeyError), block:
            block.set("a", 1)
            raise KeyError
    assert client.get("a") is None


def test_an_atomic_block_is_executed_whole_or_not_at_all(client):
    with client.atomic(durability="stored") as block:
        first, second = block.set("a", 1), block.get("a", meta=True)
    assert second.result == vatn.Entry(1, first.result, None, "stored")
    with pytest.raises(vatn.NotFound) as caught:
        with client.atomic() as block:
            block.set("b", 1)
            block.incr("none")
    assert caught.value.index == 1
    assert client.get("b") is None


def test_a_notification_is_executed_before_later_commands(client):
    for n in range(100):
        assert client.notify.set("a", n) is None
    client.notify.incr("none")
    assert client.get("a") == 99


def test_a_missing_broker_is_reported_in_time_with_the_endpoint():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
    begin = time.monotonic()
    with pytest.raises(vatn.Timeout, match=f"{endpoint} within 0.3 s: is `vatn serve` running"):
        Client(endpoint, timeout=0.3)
    assert time.monotonic() - begin < 5


def test_a_silent_peer_is_reported_in_time_with_the_command():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(vatn.Timeout, match=f"127.0.0.1:{silent.getsockname()[1]}"):
            Client(f"tcp://127.0.0.1:{silent.getsockname()[1]}", timeout=0.3)


def test_two_threads_at_once_are_refused(client):
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with client._alone():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(10)
    with pytest.raises(vatn.Unusable, match="one for each thread"):
        client.ping()
    leave.set()
    thread.join()
    assert client.ping("well") == "well"


def test_the_connection_comes_back_after_a_restart(start):
    broker = start()
    endpoint = broker.router
    with Client(endpoint, timeout=20) as client:
        client.set("a", 1)
        assert broker.stop() == 0
        start("--router", endpoint)
        assert client.get("a") == 1


def test_a_silently_broken_connection_is_replaced(shared, monkeypatch):
    monkeypatch.setattr("vatn.client.HEARTBEAT", 0.2)
    monkeypatch.setattr("vatn.client.PATIENCE_LEAST", 0.5)
    relay = Relay(shared.router)
    with Client(relay.endpoint, timeout=0.5) as client:
        client.set("a", 1)
        relay.mute()
        with pytest.raises(vatn.Timeout, match="no answer to `get`"):
            client.get("a")
        # Requests sent while the old connection is still taken for alive are lost with it.
        until = time.monotonic() + 20
        while True:
            try:
                assert client.get("a") == 1
                break
            except vatn.Timeout:
                assert time.monotonic() < until
    relay.close()


def test_a_deferred_command_in_a_pipeline_gets_its_time_and_delays_no_other(shared, client):
    seq = client.hello()["seq"]
    with Client(shared.router, timeout=1.0) as impatient:
        with impatient.pipeline() as pipeline:
            changes = pipeline.changes(seq, wait_ms=2500)
            wait = pipeline.wait(2**63, "memory", timeout_ms=1500)
            pings = [pipeline.ping(n) for n in range(3000)]
        assert changes.result == ([], seq) and wait.result is False
        assert [ping.result for ping in pings] == list(range(3000))


def test_a_signal_between_two_frames_leaves_no_half_message(client, monkeypatch):
    send = zmq.Socket.send
    sent = []

    def interrupted(self, data, *args, **options):
        if len(sent) == 2:
            raise KeyboardInterrupt
        sent.append(data)
        return send(self, data, *args, **options)

    monkeypatch.setattr(zmq.Socket, "send", interrupted)
    with pytest.raises(KeyboardInterrupt), client.pipeline() as pipeline:
        for n in range(5):
            pipeline.incr("n", initial=1)
    monkeypatch.undo()
    assert len(sent) == 2
    assert client.incr("m", initial=1) == 1
    assert client.get("n") is None


def test_a_late_answer_is_not_taken_for_another(client):
    # An answer to an id without a waiting request, as after a timeout.
    client._send([vatn.wire.request(2**40, "ping", ["late"])], time.monotonic() + 5)
    assert client.ping("now") == "now"
