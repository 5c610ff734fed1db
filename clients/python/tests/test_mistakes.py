"""Mistakes of a program or its environment: each raises a VatnError at once, and changes nothing."""

import os
import pickle
import socket
import subprocess
import sys
import threading

import msgpack
import pytest
import vatn
import zmq
import zmq.asyncio
from vatn import Client, InvalidArgument, Subscriber, TooLarge, Unusable, VatnError, endpoint
from vatn.endpoint import needs_ipv6

MISTAKES = {
    "a key for a list of keys": lambda c: c.delete_multi("boat"),
    "bytes for a list of keys": lambda c: c.delete_multi(b"boat"),
    "a bytearray for a list of keys": lambda c: c.get_multi(bytearray(b"boat")),
    "a key for a list to get": lambda c: c.get_multi("boat"),
    "a number for a list of keys": lambda c: c.delete_multi(5),
    "None for a list of keys": lambda c: c.get_multi(None),
    "numbers for keys": lambda c: c.delete_multi([1, 2]),
    "pairs for keys": lambda c: c.delete_multi([("b", 1)]),
    "text for pairs": lambda c: c.set_multi("boat"),
    "texts for pairs": lambda c: c.set_multi(["bo", "at"]),
    "bytes for pairs": lambda c: c.set_multi([b"bo"]),
    "triples for pairs": lambda c: c.set_multi([("b", 1, 2)]),
    "a number for pairs": lambda c: c.set_multi(1),
    "a number for a key of pairs": lambda c: c.set_multi({1: 2}),
    "text for commands": lambda c: c.batch("get"),
    "a dict for commands": lambda c: c.batch({"set": ["b", 1]}),
    "a method alone": lambda c: c.batch(["flush"]),
    "text for params": lambda c: c.batch([("set", "bo")]),
    "a number for commands": lambda c: c.batch(1),
    "a number for a key": lambda c: c.get(1),
    "None for a key": lambda c: c.set(None, 1),
    "a list for a key": lambda c: c.delete(["b"]),
    "half a pair in a key": lambda c: c.get("\ud800"),
    "a key that stands for bytes": lambda c: c.set("\udcff", 1),
    "a number for a prefix": lambda c: c.range(prefix=1),
    "half a pair in a prefix": lambda c: c.count(prefix="\ud800"),
    "a list for a prefix": lambda c: c.changes(0, prefix=["b"]),
    "a number for a level": lambda c: c.set("b", 1, durability=1),
    "text for a time": lambda c: c.wait(1, "memory", timeout_ms="1"),
    "a negative time": lambda c: c.changes(0, wait_ms=-1),
    "a time beyond all": lambda c: c.changes(0, wait_ms=10**400),
    "a seq that is text": lambda c: c.wait("1", "memory"),
    "a negative seq": lambda c: c.changes(-1),
    "a client's timeout that is text": lambda c: setattr(c, "timeout", "10"),
    "a client's timeout that is no number": lambda c: setattr(c, "timeout", float("nan")),
    "a list of prefixes": lambda c: Subscriber("tcp://127.0.0.1:1", ["a", "b"]),
    "a prefix that is a number": lambda c: Subscriber("tcp://127.0.0.1:1", 1),
    "patience that is text": lambda c: Subscriber("tcp://127.0.0.1:1", patience="1"),
    "a seq to begin after that is text": lambda c: Subscriber("tcp://127.0.0.1:1", after="1"),
    "an endpoint that is none": lambda c: Client("nonsense"),
    "an endpoint that is a number": lambda c: Client(7533),
    "an endpoint without a port": lambda c: Client("tcp://127.0.0.1"),
    "a subscriber's endpoint that is none": lambda c: Subscriber("nonsense"),
    "a context of asyncio": lambda c: Client(c.endpoint, context=zmq.asyncio.Context()),
    "a context that is none": lambda c: Client("tcp://127.0.0.1:1", context=5),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused_before_anything_is_sent(client, mistake):
    client.set_multi({key: key for key in ["b", "o", "a", "t", "boat"]})
    before = (client.hello()["seq"], client.count())
    with pytest.raises(InvalidArgument) as caught:
        mistake(client)
    assert isinstance(caught.value, (TypeError, ValueError)) and len(str(caught.value)) > 20
    assert (client.hello()["seq"], client.count()) == before


def test_a_mistake_that_only_the_broker_detects_is_a_vatn_error_too(client):
    for mistake in (
        lambda: client.set("b", 1, ttl_ms=0), lambda: client.set("b", 1, ttl_ms="1"), lambda: client.range(limit=0),
        lambda: client.touch("b", 1.5), lambda: client.incr("b", delta=-1), lambda: client.set("b", 1, if_=[]),
        lambda: client.batch([("nonsense", [])]), lambda: client.wait(1, "level"), lambda: client.get("x" * 40_000),
    ):
        with pytest.raises(vatn.CommandError):
            mistake()


def test_iterables_of_every_kind_are_lists_of_keys(client):
    assert client.set_multi((key, 1) for key in "abcd") and client.count() == 4
    assert client.get_multi({"a"}) == {"a": 1} and client.get_multi({"b": 0}.keys()) == {"b": 1}
    assert client.delete_multi(key for key in ("a", bytearray(b"b"), memoryview(b"c"))) == 3
    assert client.set_multi([["a", 1], (b"b", 2)]) and client.get_multi([]) == {} and client.delete_multi(()) == 0


def test_a_closed_client_raises_unusable(shared):
    client, subscriber = Client(shared.router), Subscriber(shared.publisher)
    pipeline = client.pipeline()
    client.close()
    subscriber.close()
    client.close()
    for attempt in (client.ping, lambda: client.notify.set("a", 1), lambda: list(client.scan()),
                    lambda: pipeline.get("a"), lambda: next(subscriber), lambda: subscriber.take(1)):
        with pytest.raises(Unusable, match="closed"):
            attempt()


def test_a_terminated_context_raises_unusable(shared):
    context = zmq.Context()
    context.term()
    for make in (lambda: Client(shared.router, context=context), lambda: Subscriber(shared.publisher, context=context)):
        with pytest.raises(Unusable):
            make()


def test_times_longer_than_poll_can_wait_are_kept(shared):
    for timeout in (1e300, float("inf"), 2**80):
        with Client(shared.router, timeout=timeout) as client:
            assert client.ping("well") == "well"


class Forged:
    """A broker that gives these results, one after the other, and then no more."""

    def __init__(self, results):
        self._router = zmq.Context.instance().socket(zmq.ROUTER)
        self.endpoint = f"tcp://127.0.0.1:{self._router.bind_to_random_port('tcp://127.0.0.1')}"
        self._thread = threading.Thread(target=self._answer, args=(results,))
        self._thread.start()

    def _answer(self, results):
        for result in results:
            assert self._router.poll(20_000)
            peer, *frames = self._router.recv_multipart()
            answers = [msgpack.packb([1, msgpack.unpackb(frame)[1], None, result]) for frame in frames]
            self._router.send_multipart([peer, *answers])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._thread.join()
        self._router.close(linger=0)


def test_an_answer_in_another_form_is_a_protocol_error():
    results = [{"protocol": 1}, [1], {"a": 1}, [[1], None], [[["a", 1]], None, 0], 5]
    with Forged(results) as forged, Client(forged.endpoint, timeout=20) as client:
        for attempt in (lambda: client.get("a", meta=True), client.range, lambda: client.changes(0),
                        lambda: client.changes(0), lambda: client.get_multi(["a"])):
            with pytest.raises(vatn.ProtocolError):
                attempt()


def test_a_pipeline_that_fails_midway_keeps_the_replies_received(monkeypatch):
    monkeypatch.setattr("vatn.client.MESSAGES_UNDER_WAY", 2)
    with Forged([{"protocol": 1}, "first"]) as forged, Client(forged.endpoint, timeout=1) as client:
        with pytest.raises(vatn.Timeout), client.pipeline() as pipeline:
            replies = [pipeline.ping(n) for n in range(3500)]
        assert {reply.result for reply in replies[:1000]} == {"first"}
        for reply in replies[1000:3000]:
            with pytest.raises(vatn.Timeout):
                reply.result
        for reply in replies[3000:]:
            with pytest.raises(VatnError, match="was not sent"):
                reply.result


@pytest.mark.parametrize("address", ["::1", "localhost"])
def test_ipv6_and_names_are_reached(start, address):
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    host = f"[{address}]" if ":" in address else "127.0.0.1"
    broker = start("--router", f"tcp://{host}:0", "--publisher", f"tcp://{host}:0")
    router, publisher = (endpoint.replace("127.0.0.1", address) for endpoint in (broker.router, broker.publisher))
    with Client(router) as client, Subscriber(publisher) as subscriber:
        seq = client.set("a", 1)
        assert [change.value for change in subscriber.until(seq)] == [1]


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_a_message_over_the_limit_is_refused_at_once_and_one_at_the_limit_is_sent(start):
    broker = start("--max-message-bytes", "65536")
    with Client(broker.router, timeout=30) as client:
        frame = len(vatn.wire.request(100, "set", ["a", b""]))
        fits, over = bytes(65_536 - frame - 2), bytes(65_537)
        for attempt in (
            lambda: client.set("a", over), lambda: client.set_multi({"a": 1, "b": over}), lambda: client.ping(over),
            lambda: client.notify.set("a", over), lambda: client.delete_multi([over[:30_000]] * 3),
        ):
            with pytest.raises(TooLarge) as caught:
                attempt()
            assert caught.value.details == {"limit": "message_bytes", "max": 65_536}
        with pytest.raises(TooLarge), client.pipeline() as pipeline:
            pipeline.set("b", 1)
            pipeline.set("a", over)
        with pytest.raises(TooLarge), client.atomic() as block:
            block.set("b", 1)
            block.set("a", over)
        assert client.count() == 0
        client.set("a", fits)
        # Many requests that fit are sent in messages that fit.
        with client.pipeline() as pipeline:
            replies = [pipeline.set(f"k{n}", bytes(1000 * n)) for n in range(60)]
        assert replies[-1].result and client.count() == 61


def test_messages_have_no_more_frames_than_the_broker_accepts(start):
    broker = start("--max-frames", "16")
    with Client(broker.router, timeout=30) as client, client.pipeline() as pipeline:
        replies = [pipeline.set(f"k{n}", n, durability="queued") for n in range(100)]
    assert replies[-1].result == 100


def test_the_limits_of_a_restarted_broker_are_requested_again(start):
    broker = start("--max-message-bytes", "65536")
    with Client(broker.router, timeout=30) as client:
        broker.stop()
        start("--router", broker.router)
        assert client.set("a", bytes(100_000)) > 0


CHILD = """
import os, sys, vatn
client = vatn.Client(sys.argv[1], timeout=5)
for n in range(3):
    client.set("parent", n)
subscriber = vatn.Subscriber(sys.argv[2], client=client, after=0)
scan, pipeline, notify = client.scan(), client.pipeline(), client.notify
# The fetched page has more changes, which are ready.
assert next(subscriber).seq == 1
if os.fork() == 0:
    attempts = [client.ping, lambda: next(scan), lambda: notify.set("a", 1), lambda: pipeline.get("a"),
                lambda: next(subscriber), lambda: subscriber.take(1), lambda: next(subscriber.until(9))]
    for attempt in attempts:
        try:
            attempt()
        except vatn.Unusable as error:
            assert "fork" in str(error)
        else:
            sys.exit("used in a child")
    client.close(), subscriber.close()
    with vatn.Client(sys.argv[1]) as own, vatn.Subscriber(sys.argv[2]):
        own.set("child", 1)
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
assert client.get("child") == 1
assert {change.key for change in subscriber.until(4)} == {"parent", "child"}
print("well")
"""


def test_a_forked_child_gets_unusable_at_once_and_the_parent_goes_on(start):
    broker = start()
    run = subprocess.run(
        [sys.executable, "-c", CHILD, broker.router, broker.publisher], timeout=60, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(vatn.__file__))},
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "well\n", "")


def test_a_lock_held_at_the_fork_does_not_block_the_child(client):
    with client._alone():
        child = os.fork()
        if child == 0:
            try:
                client.ping()
            except Unusable as error:
                os._exit(0 if "fork" in str(error) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_errors_can_be_passed_to_another_process():
    for error in (vatn.Unreadable(b"\xc1", "why"), vatn.Unwritable("value", "why"), vatn.Missed(1, 2),
                  vatn.Conflict("CONFLICT", "words", {"seq": 1}), vatn.Timeout("late")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_a_resolver_that_does_not_answer_is_not_waited_for(monkeypatch):
    answers = threading.Event()
    monkeypatch.setattr(endpoint, "LOOKUP", 0.1)
    # If the resolver were waited for, the name would be found to be one of IPv6.
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(socket.AF_INET6, answers.wait(60))])
    assert needs_ipv6("tcp://slow:1") is False
    answers.set()


@pytest.mark.parametrize("address, found, expected", [
    ("tcp://both:1", [socket.AF_INET6, socket.AF_INET], False), ("tcp://four:1", [socket.AF_INET], False),
    ("tcp://six:1", [socket.AF_INET6], True), ("tcp://none:1", [], False), ("tcp://[fe80::1%lo]:1", [], True),
    ("tcp://127.0.0.1:0;[::1]:1", [], True), ("ipc:///tmp/a:b", [], False), ("nonsense", [], False),
])
def test_a_name_is_reached_over_ipv4_where_it_can_be(monkeypatch, address, found, expected):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(family, None) for family in found])
    assert needs_ipv6(address) is expected
