"""Values that cannot be read or written: each is reported alone, and none is changed in silence."""

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import os
import random
import uuid

import msgpack
import pytest
import vatn
import zmq
from vatn import Subscriber, Unreadable, wire

import random_values

UNREADABLE = [
    bytes.fromhex(text)
    for text in ("c701ff00", "82a16101a16102", "8180c0", "d48000", "82c30101c0", "d7ffffffffff00000000")
]


class Raw:
    """A peer that sends values as bytes."""

    def __init__(self, endpoint):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(endpoint)

    def set(self, key, packed, method="set"):
        head = b"\x94\x00\x01" + msgpack.packb(method) + b"\x92" + msgpack.packb(key)
        self.socket.send(head + packed)
        assert self.socket.poll(20_000)
        assert msgpack.unpackb(self.socket.recv())[2] is None


@pytest.fixture
def raw(shared):
    raw = Raw(shared.router)
    yield raw
    raw.socket.close()


def is_odd(value, packed):
    return isinstance(value, Unreadable) and value.bytes == packed and value.reason in str(value)


@pytest.mark.parametrize("packed", UNREADABLE, ids=bytes.hex)
def test_an_unreadable_value_is_reported_in_its_place(client, shared, raw, packed):
    seq = client.set("a", 1)
    with Subscriber(shared.publisher, client=client, after=seq - 1) as past, Subscriber(shared.publisher) as live:
        raw.set("b", packed)
        last = client.set("c", 3)
        pages = [client.range().items, list(client.scan(page=2)), list(client.get_multi(["a", "b", "c"]).items())]
        pages.append([(change.key, change.value) for change in client.changes(seq - 1).changes])
        pages.append([(change.key, change.value) for change in past.until(last)])
        pages.append([("a", 1), *((change.key, change.value) for change in live.until(last))])
        pages.append([("a", 1), *zip("bc", client.batch([("get", ["b"]), ("get", ["c"])]))])
        pages.append([(key, entry[0]) for key, entry in client.range(meta=True).items])
        for page in pages:
            (a, one), (b, odd), (c, three) = page
            assert (a, one, b, c, three) == ("a", 1, "b", "c", 3)
            assert is_odd(odd, packed)
    entry = client.get("b", meta=True)
    assert is_odd(entry.value, packed) and (entry.seq, entry.level) == (last - 1, "synced")
    nested = client.batch([("range", [{"meta": True}]), ("get", ["b", {"meta": True}]), ("get_multi", [["b"]])])
    assert all(is_odd(odd, packed) for odd in (nested[0][0][1][1][0], nested[1][0], nested[2][0][1]))


def test_an_unreadable_value_that_is_the_whole_answer_is_raised(client, raw):
    raw.set("b", UNREADABLE[0])
    for attempt in (lambda: client.get("b"), lambda: client.delete("b", return_value=True)):
        with pytest.raises(Unreadable) as caught:
            attempt()
        assert is_odd(caught.value, UNREADABLE[0])
    assert client.get("b") is None


def test_an_unreadable_value_in_a_pipeline_is_raised_by_its_own_reply(client, raw):
    raw.set("b", UNREADABLE[0])
    client.set("c", 3)
    with client.pipeline() as pipeline:
        odd, well = pipeline.get("b"), pipeline.get("c")
    assert well.result == 3
    with pytest.raises(Unreadable):
        odd.result
    with client.atomic() as block:
        odd, well = block.get("b"), block.get("c")
    assert well.result == 3 and is_odd(odd.error, UNREADABLE[0])


def test_any_messagepack_is_read_as_an_equal_value_or_as_its_bytes(client, raw):
    seed = int(os.environ.get("VATN_SEED", random.randrange(2**32)))
    print(f"VATN_SEED={seed}")
    made = random.Random(seed)
    packed = {f"k{n:04}": random_values.value(made) for n in range(600)}
    packed["deep"] = random_values.nested(63, b"\x90")
    packed["wide"] = b"\xdd" + (200_000).to_bytes(4, "big") + b"\xc0" * 200_000
    for key, value in packed.items():
        raw.set(key, value)
    read = dict(client.scan(page=50))
    assert list(read) == sorted(packed)
    readable = 0
    for key, value in read.items():
        if isinstance(value, Unreadable):
            assert value.bytes == packed[key]
            continue
        readable += 1
        assert random_values.meaning(wire.pack(value)) == random_values.meaning(packed[key]), packed[key].hex()
    assert readable > 200, "most can be read"
    everything, next_seq = client.changes(client.hello()["seq"] - len(packed))
    assert {change.key for change in everything} <= set(packed) and everything


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Boat:
    oars: int = 2


class Text(str):
    """An object that misreports what it is."""

    def __str__(self):
        return "other"


Point = collections.namedtuple("Point", "x y")
HOLDS_ITSELF = []
HOLDS_ITSELF.append(HOLDS_ITSELF)
ZONE = datetime.timezone.utc


class Named(str):
    pass


class Listed(list):
    pass


class Mapped(dict):
    pass


NAMED, LISTED, MAPPED = Named("a"), Listed([1]), Mapped(a=1)
NAMED.own = LISTED.own = MAPPED.own = 1
REFUSED = [
    {1}, frozenset([1]), decimal.Decimal("1.5"), datetime.datetime(2026, 1, 1),
    datetime.datetime(2026, 1, 1, tzinfo=ZONE), datetime.date(2026, 1, 1), uuid.uuid4(), 2**64, -(2**63) - 1, "\ud800",
    "\udcc3\udca9", Color.RED, Boat(), Point(1, 2), object(), len, Boat, (n for n in "a"), range(3), HOLDS_ITSELF, 1j,
    Exception("x"), {"a": 1}.keys(), collections.deque(), array.array("i", [1]),
    NAMED, LISTED, MAPPED,
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_a_value_that_would_not_come_back_equal_is_refused_with_its_path(client, value):
    for inside, path in (([0, value], "value[1]"), ({"a": {"b": value}}, "value['a']['b']"), ((value,), "value[0]")):
        with pytest.raises(vatn.Unwritable) as caught:
            client.set("v", inside)
        assert caught.value.path.startswith(path) and caught.value.reason in str(caught.value)
    for attempt in (
        lambda: client.set("v", value), lambda: client.notify.set("v", value), lambda: client.ping(value),
        lambda: client.set_multi([("u", 1), ("v", value)]), lambda: client.batch([("set", ["v", value])]),
    ):
        with pytest.raises(vatn.Unwritable):
            attempt()
    with pytest.raises(vatn.Unwritable), client.atomic() as block:
        block.set("u", 1)
        block.set("v", value)
    assert client.count() == 0


def test_a_memoryview_of_other_items_than_bytes_is_refused(client):
    with pytest.raises(vatn.Unwritable, match="memoryview"):
        client.set("v", memoryview(array.array("i", [1])))
    client.set("v", memoryview(b"ab"))
    assert client.get("v") == b"ab"


def test_an_invalid_map_key_is_named(client):
    with pytest.raises(vatn.Unwritable, match="a key of value"):
        client.set("v", {Color.RED: 1})
    with pytest.raises(vatn.Unwritable, match=r"pairs\[1\]\[1\]\['a'\]"):
        client.set_multi({"u": 1, "v": {"a": {1}}})
    with pytest.raises(vatn.Unwritable, match="delta"):
        client.incr("n", delta=2**64)


def test_a_value_equal_to_a_plain_one_is_stored_as_that(client):
    counted = collections.Counter("aab")
    for value in (
        Level.HIGH, Text("text"), bytearray(b"x"), memoryview(b"x"), collections.OrderedDict(a=1), counted, {True: 1},
        {(1, (2,)): "array"}, {None: 0, 0.5: 1, b"x": 2, "x": 3}, -0.0, float("inf"), 2.0**70, True, 1.0, [Level.HIGH],
    ):
        client.set("v", value)
        assert client.get("v") == value and str(client.get("v")).isprintable()
    client.set("v", (1, (2,)))
    assert client.get("v") == [1, [2]]
    client.set("v", float("nan"))
    assert client.get("v") != client.get("v")
    assert type(client.batch([("set", ["v", True]), ("get", ["v"])])[1]) is bool


def test_a_pipeline_with_an_unwritable_value_writes_nothing(client):
    with pytest.raises(vatn.Unwritable), client.pipeline() as pipeline:
        first = [pipeline.set(f"k{n}", n) for n in range(1001)]
        pipeline.set("odd", 2**64)
    assert client.count() == 0
    with pytest.raises(vatn.VatnError, match="was not sent"):
        first[0].result
