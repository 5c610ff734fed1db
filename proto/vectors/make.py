#!/usr/bin/env python3
"""Writes the vectors beside it. `make.py --check` fails when a file differs from what this writes.

Everything expected here was written by hand from PROTOCOL.md; no broker is asked. Standard library only, and the
MessagePack encoder is its own, because vectors need encodings that a library refuses to produce.
"""

import json
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).parent


class Hex:
    """Bytes given as they are, in the notation of the README; `note` is how a reader sees them."""

    def __init__(self, tokens, note=None):
        self.tokens = tokens
        self.note = note or "<" + tokens + ">"


# --- MessagePack, shortest form, as a list of readable tokens ---------------------------------------------------


def tokens(value):
    if isinstance(value, Hex):
        return value.tokens.split()
    if value is None:
        return ["c0"]
    if isinstance(value, bool):
        return ["c3" if value else "c2"]
    if isinstance(value, int):
        return [integer(value).hex()]
    if isinstance(value, float):
        return ["cb" + struct.pack(">d", value).hex()]
    if isinstance(value, str):
        raw = value.encode()
        return [(header(raw, 0xA0, 31, 0xD9, 0xDA, 0xDB) + raw).hex()]
    if isinstance(value, bytes):
        return [(header(value, None, -1, 0xC4, 0xC5, 0xC6) + value).hex()]
    if isinstance(value, (list, tuple)):
        head = header(value, 0x90, 15, None, 0xDC, 0xDD).hex()
        return [head] + [t for item in value for t in tokens(item)]
    if isinstance(value, dict):
        head = header(value, 0x80, 15, None, 0xDE, 0xDF).hex()
        return [head] + [t for pair in value.items() for item in pair for t in tokens(item)]
    raise TypeError(value)


def integer(n):
    if 0 <= n < 128 or -32 <= n < 0:
        return struct.pack(">B", n & 0xFF)
    unsigned = ((0xCC, ">B", 1 << 8), (0xCD, ">H", 1 << 16), (0xCE, ">I", 1 << 32), (0xCF, ">Q", 1 << 64))
    signed = ((0xD0, ">b", 1 << 7), (0xD1, ">h", 1 << 15), (0xD2, ">i", 1 << 31), (0xD3, ">q", 1 << 63))
    for code, form, bound in unsigned if n >= 0 else signed:
        if (n < bound) if n >= 0 else (-n <= bound):
            return bytes([code]) + struct.pack(form, n)
    raise OverflowError(n)


def header(items, fix, fix_max, code8, code16, code32):
    n = len(items)
    if n <= fix_max:
        return bytes([fix | n])
    if code8 is not None and n < 1 << 8:
        return bytes([code8, n])
    if n < 1 << 16:
        return bytes([code16]) + struct.pack(">H", n)
    return bytes([code32]) + struct.pack(">I", n)


def hexed(value):
    return " ".join(tokens(value))


def shown(value):
    """The same value for a human: JSON, with bytes as h'..' and given bytes as <..>."""
    if isinstance(value, Hex):
        return value.note
    if isinstance(value, bytes):
        return "h'" + value.hex() + "'"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(shown(k) + ": " + shown(v) for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


# --- Steps -------------------------------------------------------------------------------------------------------


class Error:
    def __init__(self, code, **details):
        self.code = code
        self.details = details


class Loose:
    """A result map whose `ignore` members may hold anything; `*` says that the whole result may."""

    def __init__(self, decoded, ignore):
        self.decoded = decoded
        self.ignore = ignore


def request(id, method, *params):
    return [0, id, method, list(params)]


def notify(method, *params):
    return [2, method, list(params)]


def answer(id, result):
    """One reply element, and how it reads."""
    if isinstance(result, Error):
        element = {"error": result.code, "id": id, "details": result.details}
        return element, f"{result.code} {shown(result.details)}" if result.details else result.code
    if isinstance(result, Loose):
        return {"decoded": [1, id, None, result.decoded], "ignore": result.ignore}, shown(
            [1, id, None, result.decoded])
    frame = [1, id, None, result]
    return hexed(frame), shown(frame)


def step(about, requests, replies, delimiter=False):
    """`requests`: frames to encode; `replies`: (id, result) in order; REQ's empty frame when `delimiter`."""
    answers = [answer(id, result) for id, result in replies]
    edge = [""] if delimiter else []
    reads = " ; ".join(shown(frame) for frame in requests) + "  ->  "
    return {
        "about": about,
        "reads": reads + (" ; ".join(text for _, text in answers) or "no reply"),
        "request": edge + [hexed(frame) for frame in requests],
        "reply": (edge if answers else []) + [element for element, _ in answers],
    }


def call(about, method, params, result, id=7):
    return step(about, [request(id, method, *params)], [(id, result)])


def raw(about, frame, id, result):
    """A request given as bytes."""
    element, reads = answer(id, result)
    return {"about": about, "reads": reads, "request": [frame], "reply": [element]}


BAD = Error("BAD_REQUEST")


def argument(name, **more):
    return Error("BAD_ARGUMENT", argument=name, **more)


FILES = {}


def scenario(build):
    FILES[build.__name__ + ".json"] = list(build())
    return build


STATUS = [
    "server", "version", "protocol", "store_id", "seq", "limits", "features",
]

# --- The worked examples of PROTOCOL.md, which quotes these bytes -----------------------------------------------


@scenario
def examples():
    yield call(
        "hello", "hello", [{"client": "demo 1.0"}],
        Loose({name: None for name in STATUS} | {"server": "vatn", "protocol": 1, "seq": 0},
              ["version", "store_id", "limits", "features"]), id=1)
    yield call("ping", "ping", ["hi"], "hi", id=2)
    yield call("set", "set", ["boat", {"oars": 2}], 1, id=3)
    yield call("get", "get", ["boat"], {"oars": 2}, id=4)
    yield call("get with meta", "get", ["boat", {"meta": True}], [{"oars": 2}, 1, None, "synced"], id=5)
    yield call("get_multi", "get_multi", [["boat", "raft"]], [["boat", {"oars": 2}]], id=6)
    yield call("set_multi", "set_multi", [[["lake", "deep"], ["lamp", True]]], 2, id=7)
    yield call("a condition that fails", "set", ["boat", None, {"if": "absent"}], Error("CONFLICT", seq=1), id=8)
    yield call("delete", "delete", ["lamp", {"return_value": True}], True, id=9)
    yield call("delete_multi", "delete_multi", [["lamp", "boat"]], 1, id=10)
    yield call("incr", "incr", ["visits", {"initial": 1}], 1, id=11)
    yield call("decr", "decr", ["visits", {"delta": 3}], -2, id=12)
    yield call("range", "range", [{"prefix": "l", "limit": 10}], [[["lake", "deep"]], None], id=13)
    yield call("count", "count", [{}], 2, id=14)
    yield call("batch", "batch", [[["incr", ["visits"]], ["get", ["visits"]]], {"durability": "stored"}],
               [-1, -1], id=15)
    yield call("flush", "flush", [], Loose("the status line", ["*"]), id=16)
    yield call("stats", "stats", [],
               Loose({"status": "", "seq": {}, "write_queue": {}, "items": 2, "storage": "ok", "version": ""},
                     ["status", "seq", "write_queue", "version"]), id=17)
    yield call("compact", "compact", [], 1, id=18)
    yield call("append", "append", ["log", "ebb, "], 5, id=19)
    yield call("append, again", "append", ["log", "flood"], 10, id=20)


# --- Values: every type, byte for byte ---------------------------------------------------------------------------

VALUES = [
    ("nil", "c0"), ("false", "c2"), ("true", "c3"),
    ("positive fixint 0", "00"), ("positive fixint 127", "7f"),
    ("negative fixint -1", "ff"), ("negative fixint -32", "e0"),
    ("uint 8", "ccff"), ("uint 16", "cdffff"), ("uint 32", "ceffffffff"), ("uint 64", "cfffffffffffffffff"),
    ("int 8", "d080"), ("int 16", "d18000"), ("int 32", "d280000000"), ("int 64", "d38000000000000000"),
    ("float 32 1.5", "ca3fc00000"), ("float 32 NaN with payload", "ca7fc00001"),
    ("float 64 0.1", "cb3fb999999999999a"), ("float 64 -0.0", "cb8000000000000000"),
    ("float 64 infinity", "cb7ff0000000000000"), ("float 64 NaN with payload", "cbfff8000000000123"),
    ("fixstr, empty", "a0"), ("fixstr", "a3666f6f"), ("fixstr of 31 bytes", "bf 78*31"),
    ("fixstr in UTF-8", "a56bc3a6726e"), ("str that is not UTF-8", "a2fffe"),
    ("str 8", "d920 78*32"), ("str 16", "da0100 78*256"), ("str 32", "db00010000 78*65536"),
    ("bin 8, empty", "c400"), ("bin 8", "c403000102"), ("bin 16", "c50100 00*256"), ("bin 32", "c600010000 00*65536"),
    ("fixarray, empty", "90"), ("fixarray of mixed types", "94 01 c0 a161 c3"),
    ("array 16 of 16", "dc0010 00*16"), ("array 32 of 65,536", "dd00010000 c0*65536"),
    ("fixmap, empty", "80"), ("fixmap", "82 a161 01 a162 91 02"),
    ("fixmap with keys of any type", "83 01 a3696e74 c0 a36e696c 91 01 a3617272"),
    ("fixmap with a key twice", "82 a161 01 a161 02"),
    ("map 16 of 16", "de0010 " + " ".join(f"{n:02x} c0" for n in range(16))),
    ("map 32, one entry", "df00000001 a161 01"),
    ("fixext 1", "d40100"), ("fixext 2", "d5010000"), ("fixext 4", "d60100000000"), ("fixext 8", "d701 00*8"),
    ("fixext 16", "d801 00*16"), ("ext 8, empty", "c70005"), ("ext 8", "c70305010203"),
    ("ext 16", "c8010005 00*256"), ("ext 32", "c90001000005 00*65536"),
    ("timestamp 32", "d6ff00000000"), ("timestamp 64", "d7ffa1dcd7c8fffffff0"),
    ("timestamp 96", "c70cff3b9ac9ff7fffffffffffffff"), ("ext of a negative type", "d48000"),
    ("not shortest: 1 as uint 8", "cc01"), ("not shortest: 1 as uint 64", "cf0000000000000001"),
    ("not shortest: 1 as int 64", "d30000000000000001"), ("not shortest: -1 as int 8", "d0ff"),
    ("not shortest: foo as str 8", "d903666f6f"), ("not shortest: foo as str 16", "da0003666f6f"),
    ("not shortest: foo as str 32", "db00000003666f6f"),
    ("not shortest: bin 16 of one", "c5000100"), ("not shortest: bin 32 of one", "c60000000100"),
    ("not shortest: array 16 of one", "dc000101"), ("not shortest: array 32 of one", "dd0000000101"),
    ("not shortest: map 16 of one", "de0001a16101"),
    ("not shortest: ext 8 of one", "c7010500"), ("not shortest: ext 16 of one", "c800010500"),
    ("not shortest: ext 32 of one", "c9000000010500"),
    ("64 arrays deep", "91*63 90"), ("64 maps deep", " ".join(["81 a161"] * 63 + ["80"])),
]


@scenario
def values():
    for n, (name, code) in enumerate(VALUES, 1):
        value = Hex(code)
        yield step("kept byte for byte: " + name, [request(7, "set", "v", value), request(8, "get", "v")],
                   [(7, n), (8, value)])
    yield call("ping returns any value as it came", "ping", [Hex("d903666f6f")], Hex("d903666f6f"))
    yield call("the key too may be encoded in any form", "get", [Hex("db0000000176", '"v"')], Hex(VALUES[-1][1]))
    for name, code in (("65 arrays deep", "91*64 90"), ("65 maps deep", " ".join(["81 a161"] * 64 + ["80"])),
                       ("5,000 arrays deep", "91*5000 90"), ("byte 0xC1", "c1"), ("byte 0xC1 within", "92 01 c1")):
        yield call("refused: " + name, "set", ["v", Hex(code)], BAD)
    yield call("refused as a ping's payload too: 65 arrays deep", "ping", [Hex("91*64 90")], BAD)
    yield call("the last accepted value is still there", "get", ["v"], Hex(VALUES[-1][1]))


# --- Keys --------------------------------------------------------------------------------------------------------


@scenario
def keys():
    yield call("a key set as str", "set", ["foo", 1], 1)
    yield call("is found as bin", "get", [b"foo"], 1)
    yield call("set as bin, it is the same key", "set", [b"foo", 2], 2)
    yield call("and there is one", "count", [], 1)
    yield call("the empty key is a key", "set", ["", 3], 3)
    yield call("as bin too", "get", [b""], 3)
    yield call("a key that is not UTF-8", "set", [b"\x00\xfe", 4], 4)
    yield call("it is a key as str too", "get", [Hex("a200fe")], 4)
    yield call("keys come back as str when they are UTF-8, else as bin, in bytewise order", "range",
               [{"keys_only": True}], [["", b"\x00\xfe", "foo"], None])
    yield call("a key set as bin comes back as str", "get_multi", [[b"foo"]], [["foo", 2]])
    yield call("0xFE may begin a key", "set", [b"\xfe", 5], 5)
    yield call("0xFF may not", "set", [b"\xff", 5], Error("BAD_KEY"))
    yield call("nor for a reader", "get", [b"\xffbeat"], Error("BAD_KEY"))
    yield call("0xFF may stand later", "set", [b"a\xff", 6], 6)
    longest = Hex("da8000 6b*32768", "a key of 32,768 bytes")
    yield call("the longest key", "set", [longest, 7], 7)
    yield call("is found", "get", [longest], 7)
    yield call("one byte more", "get", [Hex("da8001 6b*32769", "a key of 32,769 bytes")], Error("BAD_KEY"))
    yield call("in a list", "get_multi", [["foo", b"\xff"]], Error("BAD_KEY"))
    yield call("in pairs: nothing is written", "set_multi", [[["new", 1], [b"\xff", 1]]], Error("BAD_KEY"))
    yield call("nothing was", "get", ["new"], None)
    for method in ("delete", "incr", "decr"):
        yield call("nor for any command: " + method, method, [b"\xff"], Error("BAD_KEY"))
    yield call("nor for any command: delete_multi", "delete_multi", [["foo", b"\xff"]], Error("BAD_KEY"))
    yield call("and foo is still there", "get", ["foo"], 2)
    for name, value in (("nil", None), ("an integer", 1), ("true", True), ("an array", ["foo"]), ("a map", {}),
                        ("an ext", Hex("d40100"))):
        yield call("a key must be str or bin: " + name, "get", [value], argument("key"))
    yield call("key_prefix stands before the key", "set", ["foo", 8, {"key_prefix": "1"}], 8)
    yield call("LeakDB's 1foo", "get", ["1foo"], 8)
    yield call("a get with it", "get", ["foo", {"key_prefix": "1"}], 8)
    yield call("an empty one changes nothing", "set", ["foo", 9, {"key_prefix": b""}], 9)
    yield call("nor does nil", "delete", ["foo", {"key_prefix": None}], True)
    yield call("in pairs", "set_multi", [[["a", 1], ["b", 2]], {"key_prefix": "p:"}], 11)
    yield call("in a delete", "delete", ["a", {"key_prefix": "p:"}], True)
    yield call("in a list of deletes", "delete_multi", [["a", "b"], {"key_prefix": "p:"}], 1)
    yield call("in incr", "incr", ["n", {"key_prefix": "p:", "initial": 5}], 5)
    yield call("which was", "get", ["p:n"], 5)
    yield call("the whole key is checked: too long", "set",
               [Hex("da8000 6b*32768", "a key of 32,768 bytes"), 1, {"key_prefix": "1"}], Error("BAD_KEY"))
    yield call("the whole key is checked: first byte", "set", ["k", 1, {"key_prefix": b"\xff"}], Error("BAD_KEY"))
    yield call("a prefix before 0xFF makes it a fine key", "set", [b"\xff", 1, {"key_prefix": "p"}], 15)


# --- The envelope ------------------------------------------------------------------------------------------------


@scenario
def envelope():
    for id in (0, 127, 128, 65536, 2**32, 2**64 - 1):
        yield call(f"the id is echoed: {id}", "ping", [], None, id=id)
    yield raw("an id in a longer form is answered in the shortest", "94 00 cf0000000000000007 a470696e67 90", 7, None)
    yield raw("a positive id in a signed form is an id", "94 00 d007 a470696e67 90", 7, None)
    yield raw("array 16 and str 8 in the envelope are fine", "dc0004 cc00 07 d90470696e67 dc0000", 7, None)
    yield raw("a negative id cannot be echoed", "94 00 ff a470696e67 90", None, BAD)
    yield raw("nor one that is not an integer", "94 00 a137 a470696e67 90", None, BAD)
    yield raw("nor a float", "94 00 cb401c000000000000 a470696e67 90", None, BAD)
    yield raw("a fifth element", "95 00 07 a470696e67 90 c0", 7, BAD)
    yield raw("a missing element", "93 00 07 a470696e67", 7, BAD)
    yield raw("type and id alone", "92 00 07", 7, BAD)
    yield raw("type alone", "91 00", None, BAD)
    yield raw("an empty array", "90", None, BAD)
    yield raw("a type that is neither 0 nor 2", "94 03 07 a470696e67 90", None, BAD)
    yield raw("a response is not a request", "94 01 07 c0 c0", None, BAD)
    yield raw("a map", "80", None, BAD)
    yield raw("a number", "07", None, BAD)
    yield raw("nil", "c0", None, BAD)
    yield raw("the byte 0xC1", "c1", None, BAD)
    yield raw("text", "50494e47 0d0a", None, BAD)
    yield raw("a trailing byte", "94 00 07 a470696e67 90 00", 7, BAD)
    yield raw("two requests in one frame", "94 00 07 a470696e67 90 94 00 08 a470696e67 90", 7, BAD)
    yield raw("text may be bin: a method", "94 00 07 c40470696e67 90", 7, None)
    yield raw("a method that is a number", "94 00 07 01 90", 7, BAD)
    yield raw("params that are a map", "94 00 07 a470696e67 80", 7, BAD)
    yield raw("params that are nil", "94 00 07 a470696e67 c0", 7, BAD)
    yield call("a method nobody has", "fly", [], Error("UNKNOWN_METHOD"))
    yield call("methods are lower case", "PING", [], Error("UNKNOWN_METHOD"))
    yield call("the empty method", "", [], Error("UNKNOWN_METHOD"))
    yield call("a method nobody has, whatever its params", "fly", [1, {"x": 2}], Error("UNKNOWN_METHOD"))
    yield raw("the first fault counts: a method nobody has, then 0xC1", "94 00 07 a3666c79 91 c1", 7,
              Error("UNKNOWN_METHOD"))
    huge = [
        ("the envelope, array 32", "ddffffffff 00 07 a470696e67 90", 7),
        ("the envelope, array 16", "dcffff 00 07 a470696e67 90", 7),
        ("the method, str 32", "94 00 07 dbffffffff 70", 7),
        ("the params, array 32", "94 00 07 a470696e67 ddffffffff", 7),
        ("a key, str 32", "94 00 07 a3676574 91 dbffffffff 61", 7),
        ("a key, bin 32", "94 00 07 a3676574 91 c6ffffffff 61", 7),
        ("a list of keys, array 32", "94 00 07 a96765745f6d756c7469 91 ddffffffff a161", 7),
        ("a value, str 32", "94 00 07 a3736574 92 a161 dbffffffff 61", 7),
        ("a value, bin 32", "94 00 07 a3736574 92 a161 c6ffffffff 61", 7),
        ("a value, array 32", "94 00 07 a3736574 92 a161 ddffffffff 61", 7),
        ("a value, map 32", "94 00 07 a3736574 92 a161 dfffffffff 61 61", 7),
        ("a value, ext 32", "94 00 07 a3736574 92 a161 c9ffffffff 01 61", 7),
        ("options, map 32", "94 00 07 a3676574 92 a161 dfffffffff a46d657461 c3", 7),
    ]
    for name, frame, id in huge:
        yield raw("a length of 2^32-1 or 2^16-1 that is not there: " + name, frame, id, BAD)
    yield call("and the broker is well", "ping", ["well"], "well")


@scenario
def truncation():
    whole = request(7, "set", "key", {"a": [1, 2.5, b"\x00", "x"]}, {"durability": "memory", "if": "absent"})
    code = bytes.fromhex("".join(tokens(whole)))
    for n in range(1, len(code)):
        id = 7 if n >= 3 else None
        yield raw(f"the first {n} of {len(code)} bytes", code[:n].hex(), id, BAD)
    yield step("all of them", [whole], [(7, 1)])
    quiet = notify("set", "key", [1, 2, 3])
    code = bytes.fromhex("".join(tokens(quiet)))
    for n in range(2, len(code)):
        yield {"about": f"the first {n} of {len(code)} bytes of a notification: dropped", "reads": "no reply",
               "request": [code[:n].hex()], "reply": []}
    yield call("none of them wrote", "get", ["key"], {"a": [1, 2.5, b"\x00", "x"]})


@scenario
def messages():
    ping = request(2, "ping", "two")
    yield step("three requests in one message, three replies in one", [request(1, "set", "a", 1), ping, request(
        3, "get", "a")], [(1, 1), (2, "two"), (3, 1)])
    yield step("REQ: an empty frame goes before, and comes back", [request(1, "get", "a")], [(1, 1)], delimiter=True)
    yield step("with several requests too", [request(1, "get", "a"), ping], [(1, 1), (2, "two")], delimiter=True)
    yield step("one refused request does not touch its neighbours",
               [request(1, "set", "a", 2), request(2, "fly"), request(3, "get", "a")],
               [(1, 2), (2, Error("UNKNOWN_METHOD")), (3, 2)])
    yield step("nor does one that is not MessagePack", [request(1, "get", "a"), Hex("c1"), request(3, "get", "a")],
               [(1, 2), (None, BAD), (3, 2)])
    bad = {"error": "BAD_REQUEST", "id": None, "details": {}}
    yield {"about": "a message without a request", "reads": "BAD_REQUEST", "request": [""], "reply": ["", bad]}
    yield {"about": "an empty frame that is not first is a request of no bytes", "reads": "pong ; BAD_REQUEST",
           "request": [hexed(ping), ""], "reply": [hexed([1, 2, None, "two"]), bad]}
    yield {"about": "so is a second empty frame", "reads": "BAD_REQUEST", "request": ["", ""], "reply": ["", bad]}
    yield step("ids are the client's own: the same id twice", [request(5, "ping", "x"), request(5, "ping", "y")],
               [(5, "x"), (5, "y")])


@scenario
def notifications():
    yield step("a notification has no reply", [notify("set", "a", 1)], [])
    yield call("it was done, before what was sent after it", "get", ["a"], 1)
    yield step("among requests: only those are answered",
               [request(1, "get", "a"), notify("set", "a", 2), request(3, "get", "a"), notify("incr", "a"),
                request(5, "get", "a")], [(1, 1), (3, 2), (5, 3)])
    yield step("REQ with a notification and a request", [notify("delete", "a"), request(2, "get", "a")],
               [(2, None)], delimiter=True)
    yield step("a refused one is dropped", [notify("set", b"\xff", 1)], [])
    yield step("one of an unknown method is dropped", [notify("fly")], [])
    yield step("a condition that fails is silent", [notify("set", "a", 1, {"if": "present"})], [])
    yield step("a notification may read; nobody hears", [notify("get", "a")], [])
    for name, frame in (("with an id", "94 02 07 a470696e67 90"), ("without params", "92 02 a470696e67"),
                        ("alone", "91 02"), ("trailing byte", "93 02 a3736574 92 a161 01 00"),
                        ("0xC1", "93 02 a3736574 92 a161 c1")):
        yield {"about": "a malformed one is dropped: " + name, "reads": "no reply", "request": [frame], "reply": []}
    yield call("nothing was written by any", "count", [], 0)
    yield step("a batch", [notify("batch", [["set", ["a", 1]], ["set", ["b", 2]]])], [])
    yield call("was done", "range", [], [[["a", 1], ["b", 2]], None])


# --- Arguments and options ---------------------------------------------------------------------------------------


@scenario
def arguments():
    yield call("hello needs nothing", "hello", [],
               Loose({name: None for name in STATUS} | {"server": "vatn", "protocol": 1, "seq": 0},
                     ["version", "store_id", "limits", "features"]))
    yield call("hello: client must be str", "hello", [{"client": 1}], argument("client"))
    yield call("hello: unknown option", "hello", [{"colour": "red"}], argument("colour"))
    yield call("ping: nothing is nil", "ping", [], None)
    yield call("ping: a map is a payload", "ping", [{"a": 1}], {"a": 1})
    yield call("ping: two payloads", "ping", [1, 2], argument("params"))
    missing = [
        ("get", [], "key"), ("get_multi", [], "keys"), ("set", [], "key"), ("set", ["a"], "value"),
        ("set_multi", [], "pairs"), ("delete", [], "key"), ("delete_multi", [], "keys"), ("incr", [], "key"),
        ("decr", [], "key"), ("batch", [], "commands"),
    ]
    for method, params, name in missing:
        yield call(f"{method}: {name} is missing", method, params, argument(name))
    surplus = [
        ("hello", [{}, 1]), ("get", ["a", {}, 1]), ("get_multi", [[], {}, 1]), ("set", ["a", 1, {}, 1]),
        ("set_multi", [[], {}, 1]), ("delete", ["a", {}, 1]), ("delete_multi", [[], {}, 1]),
        ("incr", ["a", {}, 1]), ("decr", ["a", {}, 1]), ("range", [{}, 1]), ("count", [{}, 1]),
        ("delete_range", [{"prefix": "a"}, 1]), ("batch", [[], {}, 1]), ("flush", [{}, 1]), ("stats", [{}, 1]),
        ("compact", [{}, 1]),
    ]
    for method, params in surplus:
        yield call(f"{method}: one argument too many", method, params, argument("params"))
    first = {
        "get": ["a"], "get_multi": [[]], "set": ["a", 1], "set_multi": [[]], "delete": ["a"], "delete_multi": [[]],
        "incr": ["a"], "decr": ["a"], "range": [], "count": [], "batch": [[]], "flush": [], "stats": [], "compact": [],
        "delete_range": [],
    }
    for method, params in first.items():
        yield call(f"{method}: options that are no map", method, params + [7], argument("options"))
        yield call(f"{method}: an unknown option", method, params + [{"colour": "red"}], argument("colour"))
        yield call(f"{method}: an option whose name is a number", method, params + [{7: 1}], argument("options"))
    wrong = [
        ("get_multi", ["a"], "keys"), ("get_multi", [[1]], "keys"), ("set_multi", [{"a": 1}], "pairs"),
        ("set_multi", [["a"]], "pairs"), ("set_multi", [[["a"]]], "pairs"), ("set_multi", [[["a", 1, 2]]], "pairs"),
        ("set_multi", [[[1, 1]]], "pairs"), ("delete_multi", ["a"], "keys"), ("delete_multi", [[None]], "keys"),
        ("get", ["a", {"meta": 1}], "meta"), ("set", ["a", 1, {"durability": "fast"}], "durability"),
        ("set", ["a", 1, {"durability": 3}], "durability"), ("set", ["a", 1, {"if": "maybe"}], "if"),
        ("set", ["a", 1, {"if": -1}], "if"), ("set", ["a", 1, {"if": True}], "if"),
        ("set", ["a", 1, {"key_prefix": 1}], "key_prefix"), ("set_multi", [[], {"if": "absent"}], "if"),
        ("delete", ["a", {"return_value": 1}], "return_value"), ("delete", ["a", {"if": "absent"}], "if"),
        ("delete_multi", [[], {"if": "present"}], "if"), ("get", ["a", {"durability": "memory"}], "durability"),
        ("incr", ["a", {"delta": -1}], "delta"), ("incr", ["a", {"delta": 1.0}], "delta"),
        ("incr", ["a", {"initial": "1"}], "initial"), ("incr", ["a", {"if": "present"}], "if"),
        ("range", [{"limit": 0}], "limit"), ("range", [{"limit": -1}], "limit"), ("range", [{"from": 1}], "from"),
        ("range", [{"after": 1}], "after"), ("range", [{"to": []}], "to"), ("range", [{"prefix": 1}], "prefix"),
        ("range", [{"reverse": 1}], "reverse"), ("range", [{"keys_only": "yes"}], "keys_only"),
        ("count", [{"prefix": 1}], "prefix"), ("batch", [{}], "commands"),
        ("delete_range", [], "prefix"), ("delete_range", [{}], "prefix"),
        ("delete_range", [{"limit": 1, "after": "a", "prefix": None}], "prefix"),
        ("delete_range", [{"prefix": 1}], "prefix"), ("delete_range", [{"from": 1}], "from"),
        ("delete_range", [{"to": []}], "to"), ("delete_range", [{"prefix": "a", "after": 1}], "after"),
        ("delete_range", [{"prefix": "a", "limit": 0}], "limit"),
        ("delete_range", [{"prefix": "a", "durability": "fast"}], "durability"),
        ("delete_range", [{"prefix": "a", "reverse": True}], "reverse"),
        ("delete_range", [{"prefix": "a", "if": "present"}], "if"),
        ("batch", [[], {"durability": "fast"}], "durability"),
    ]
    for method, params, name in wrong:
        yield call(f"{method}: {name} is wrong", method, params, argument(name))
    yield call("an option given as nil is not given", "set", ["a", 1, {"if": None, "durability": None}], 1)
    yield call("options that are nil are no map", "get", ["a", None], argument("options"))
    yield call("text may be bin: an option and its value", "set", ["a", 1, {b"durability": b"stored"}], 2)
    yield call("a nil value is a value", "set", ["n", None], 3)
    yield call("an empty map of options", "get", ["a", {}], 1)
    twice = Hex("82 a46d657461 c3 a46d657461 c3", '{"meta": true, "meta": true}')
    yield call("an option twice", "get", ["a", twice], argument("meta"))
    twice = Hex("82 a46d657461 c0 a46d657461 c3", '{"meta": nil, "meta": true}')
    yield call("an option twice, once as nil", "get", ["a", twice], argument("meta"))
    yield call("nothing above wrote but what said so", "range", [], [[["a", 1], ["n", None]], None])


# --- Writes ------------------------------------------------------------------------------------------------------


@scenario
def writes():
    yield call("set answers its seq", "set", ["a", 1], 1)
    yield call("the same value again is a change", "set", ["a", 1], 2)
    yield call("get with meta", "get", ["a", {"meta": True}], [1, 2, None, "synced"])
    yield call("get with meta: false", "get", ["a", {"meta": False}], 1)
    yield call("absent", "get", ["b"], None)
    yield call("absent, with meta", "get", ["b", {"meta": True}], None)
    yield call("a nil value", "set", ["nil", None], 3)
    yield call("is told from an absent one by meta", "get", ["nil", {"meta": True}], [None, 3, None, "synced"])
    yield call("set_multi: one seq", "set_multi", [[["x", 1], ["y", 2], ["x", 3]]], 4)
    yield call("the later of two wins", "get_multi", [["y", "x", "none", "y"]], [["y", 2], ["x", 3]])
    yield call("they share the seq", "get", ["y", {"meta": True}], [2, 4, None, "synced"])
    yield call("an empty set_multi writes nothing: the last seq", "set_multi", [[]], 4)
    yield call("get_multi of nothing", "get_multi", [[]], [])
    yield call("delete", "delete", ["x"], True)
    yield call("again", "delete", ["x"], False)
    yield call("the value of what is gone", "delete", ["y", {"return_value": True}], 2)
    yield call("nothing was there", "delete", ["y", {"return_value": True}], None)
    yield call("a delete that found nothing took no seq", "set", ["x", 1], 7)
    yield call("delete_multi counts what existed", "delete_multi", [["x", "none", "x", "nil"]], 2)
    yield call("of nothing", "delete_multi", [[]], 0)
    yield call("of missing keys: no seq", "delete_multi", [["none"]], 0)
    yield call("it took one", "set", ["z", 1], 9)
    for n, level in enumerate(("memory", "queued", "stored", "synced"), 10):
        yield call("durability " + level, "set", ["d", n, {"durability": level}], n)
        yield call("its entry says so", "get", ["d", {"meta": True}], [n, n, None, level])
    yield call("set_multi at a level", "set_multi", [[["d", 0]], {"durability": "stored"}], 14)
    yield call("of pairs", "get", ["d", {"meta": True}], [0, 14, None, "stored"])
    yield call("delete at a level", "delete", ["d", {"durability": "memory"}], True)
    yield call("delete_multi at a level", "delete_multi", [["z"], {"durability": "queued"}], 1)
    yield call("flush takes a map of no options", "flush", [{}], Loose("the status line", ["*"]))
    yield call("stats too", "stats", [{}], Loose({"items": 1}, []))


@scenario
def conditions():
    yield call("present: it is not", "set", ["a", 1, {"if": "present"}], Error("CONFLICT", seq=None))
    yield call("a seq: it is not there", "set", ["a", 1, {"if": 1}], Error("CONFLICT", seq=None))
    yield call("absent: it is", "set", ["a", 1, {"if": "absent"}], 1)
    yield call("absent: no longer", "set", ["a", 2, {"if": "absent"}], Error("CONFLICT", seq=1))
    yield call("nothing changed", "get", ["a", {"meta": True}], [1, 1, None, "synced"])
    yield call("present", "set", ["a", 3, {"if": "present"}], 2)
    yield call("the seq it had", "set", ["a", 4, {"if": 1}], Error("CONFLICT", seq=2))
    yield call("the seq it has", "set", ["a", 4, {"if": 2}], 3)
    yield call("seq 0 is nobody's", "set", ["a", 4, {"if": 0}], Error("CONFLICT", seq=3))
    yield call("the largest seq", "set", ["a", 4, {"if": 2**64 - 1}], Error("CONFLICT", seq=3))
    yield call("delete, another seq", "delete", ["a", {"if": 2}], Error("CONFLICT", seq=3))
    yield call("delete of a missing key, present", "delete", ["b", {"if": "present"}], Error("CONFLICT", seq=None))
    yield call("delete of a missing key, seq", "delete", ["b", {"if": 3}], Error("CONFLICT", seq=None))
    yield call("delete, its seq", "delete", ["a", {"if": 3}], True)
    yield call("with the prefix", "set", ["a", 1, {"key_prefix": "p", "if": "absent"}], 5)
    yield call("with the prefix, again", "set", ["a", 1, {"key_prefix": "p", "if": "absent"}], Error("CONFLICT", seq=5))
    yield call("delete, present", "delete", ["pa", {"if": "present", "return_value": True}], 1)


@scenario
def counters():
    yield call("missing", "incr", ["n"], Error("NOT_FOUND"))
    yield call("missing, decr", "decr", ["n"], Error("NOT_FOUND"))
    yield call("missing, with initial: it becomes the initial, not one more", "incr", ["n", {"initial": 5}], 5)
    yield call("initial is for the missing only", "incr", ["n", {"initial": 5}], 6)
    yield call("delta", "incr", ["n", {"delta": 10}], 16)
    yield call("delta 0", "incr", ["n", {"delta": 0}], 16)
    yield call("down", "decr", ["n", {"delta": 20}], -4)
    yield call("decr, missing, with initial", "decr", ["m", {"initial": -7, "delta": 3}], -7)
    yield call("each was a write", "get", ["m", {"meta": True}], [-7, 6, None, "synced"])
    for code in ("a0", "90", "c0", "c2", "cb3ff0000000000000", "a131", "c40101", "d40101"):
        yield step("not a number: " + code, [notify("set", "s", Hex(code)), request(7, "incr", "s", {"initial": 1})],
                   [(7, Error("NOT_A_NUMBER"))])
    yield call("nor for decr", "decr", ["s"], Error("NOT_A_NUMBER"))
    yield step("an integer in any form counts", [notify("set", "s", Hex("cf0000000000000005")), request(7, "incr", "s")],
               [(7, 6)])
    yield call("and is kept in the shortest", "get", ["s"], 6)
    yield step("a signed form too", [notify("set", "s", Hex("d3ffffffffffffffff")), request(7, "incr", "s")], [(7, 0)])
    yield step("the largest", [notify("set", "s", 2**64 - 2), request(7, "incr", "s")], [(7, 2**64 - 1)])
    yield call("one more", "incr", ["s"], Error("OVERFLOW"))
    yield call("is as it was", "get", ["s"], 2**64 - 1)
    yield call("the largest delta", "decr", ["s", {"delta": 2**64 - 1}], 0)
    yield step("the smallest", [notify("set", "s", -(2**63) + 1), request(7, "decr", "s")], [(7, -(2**63))])
    yield call("one less", "decr", ["s"], Error("OVERFLOW"))
    yield call("up again, by more than an i64 holds", "incr", ["s", {"delta": 2**64 - 1}], 2**63 - 1)
    yield call("a durability", "incr", ["s", {"durability": "memory"}], 2**63)
    yield call("initial at its bounds", "incr", ["i", {"initial": -(2**63)}], -(2**63))
    yield call("initial at its bounds, up", "incr", ["j", {"initial": 2**64 - 1}], 2**64 - 1)


@scenario
def appends():
    yield call("to a missing key: it becomes the value", "append", ["a", "one"], 3)
    yield call("so", "get", ["a", {"meta": True}], ["one", 1, None, "synced"])
    yield call("behind what is there", "append", ["a", " two"], 7)
    yield call("text and text are text", "get", ["a"], "one two")
    yield call("text and bytes", "append", ["a", b"\xff"], 8)
    yield call("are bytes", "get", ["a"], b"one two\xff")
    yield call("bytes and text", "append", ["a", "!"], 9)
    yield call("are bytes too", "get", ["a"], b"one two\xff!")
    yield call("nothing, to a missing key", "append", ["e", ""], 0)
    yield call("is empty text", "get", ["e"], "")
    yield call("nothing, to what is there, is a write all the same", "append", ["e", b""], 0)
    yield call("with bytes that are none it becomes bytes", "get", ["e", {"meta": True}], [b"", 6, None, "synced"])
    yield call("a value that is not in the shortest form", "set", ["l", Hex("da0001 78")], 7)
    yield call("is counted by its bytes", "append", ["l", Hex("db00000001 79")], 2)
    yield call("and kept in the shortest", "get", ["l"], "xy")
    yield call("text that is not UTF-8 is text", "append", ["u", Hex("a1c3")], 1)
    yield call("half a letter each", "append", ["u", Hex("a1a9")], 2)
    yield call("make one", "get", ["u"], "\u00e9")
    yield call("key_prefix", "append", ["a", "x", {"key_prefix": "p:"}], 1)
    yield call("a condition that fails", "append", ["a", "x", {"if": "absent"}], Error("CONFLICT", seq=4))
    yield call("one that holds", "append", ["a", "x", {"if": 4}], 10)
    yield call("a time to live", "append", ["t", "1", {"ttl_ms": 3600000, "durability": "queued"}], 1)
    yield call("its value in a batch", "batch", [[["append", ["t", "2"]], ["append", ["t", "3"]], ["get", ["t"]]]],
               [2, 3, "123"])
    yield call("an error undoes all", "batch", [[["append", ["t", "4"]], ["incr", ["none"]]]], Error("NOT_FOUND", index=1))
    yield call("so", "get", ["t"], "123")
    yield call("a longest value", "set", ["m", Hex("c600100000 61*1048576", "1,048,576 bytes")], 15)
    yield call("takes no more", "append", ["m", "x"], Error("TOO_LARGE", limit="append_bytes", max=1 << 20))
    yield call("and is as it was", "append", ["m", b""], 1 << 20)
    yield call("too much at once", "append", ["n", Hex("c600100001 61*1048577", "1,048,577 bytes")],
               Error("TOO_LARGE", limit="append_bytes", max=1 << 20))
    yield call("in a batch, behind what the batch has put there", "batch",
               [[["set", ["b", Hex("c600100000 61*1048576", "1,048,576 bytes")]], ["append", ["b", "x"]]]],
               Error("TOO_LARGE", limit="append_bytes", max=1 << 20, index=1))
    yield call("nothing was written", "get_multi", [["n", "b"]], [])
    for code in ("00", "90", "c0", "c2", "cb3ff0000000000000", "d40101"):
        yield step("neither text nor bytes: " + code, [notify("set", "s", Hex(code)), request(7, "append", "s", "x")],
                   [(7, Error("WRONG_TYPE"))])
        yield call("to be appended: " + code, "append", ["a", Hex(code)], argument("bytes"))
    yield call("a key that may not be", "append", [b"\xff", "x"], Error("BAD_KEY"))
    yield call("key is missing", "append", [], argument("key"))
    yield call("bytes are missing", "append", ["a"], argument("bytes"))
    yield call("unknown option", "append", ["a", "x", {"delta": 1}], argument("delta"))
    yield call("one argument too many", "append", ["a", "x", {}, 1], argument("params"))


@scenario
def ranges():
    letters = [[letter, n] for n, letter in enumerate("abcde")]
    yield call("nothing yet", "range", [], [[], None])
    yield call("nothing to count", "count", [], 0)
    yield call("five", "set_multi", [list(reversed(letters))], 1)
    yield call("and two", "set_multi", [[["b1", None], ["B", True]]], 2)
    everything = [["B", True], *letters[:2], ["b1", None], *letters[2:]]
    yield call("in bytewise order", "range", [], [everything, None])
    yield call("an empty map", "range", [{}], [everything, None])
    yield call("from is in it, to is not", "range", [{"from": "b", "to": "d"}],
               [[["b", 1], ["b1", None], ["c", 2]], None])
    yield call("after is not in it", "range", [{"after": "b", "to": "d"}], [[["b1", None], ["c", 2]], None])
    yield call("from a key that is not there", "range", [{"from": "bb", "keys_only": True}], [["c", "d", "e"], None])
    yield call("a prefix", "range", [{"prefix": "b"}], [[["b", 1], ["b1", None]], None])
    yield call("prefix and from", "range", [{"prefix": "b", "from": "b0"}], [[["b1", None]], None])
    yield call("prefix and to", "range", [{"prefix": "b", "to": "b0"}], [[["b", 1]], None])
    yield call("the empty prefix is no prefix", "range", [{"prefix": "", "limit": 1, "keys_only": True}], [["B"], "B"])
    yield call("keys only", "range", [{"keys_only": True}], [["B", "a", "b", "b1", "c", "d", "e"], None])
    yield call("with what is known of the values", "range", [{"meta": True, "limit": 1}],
               [[["B", [True, 2, None, "synced"]]], "B"])
    yield call("meta has nothing to tell of keys alone", "range", [{"meta": True, "keys_only": True}], argument("meta"))
    yield call("reverse", "range", [{"reverse": True, "keys_only": True}], [["e", "d", "c", "b1", "b", "a", "B"], None])
    yield call("reverse: from is in it, to is not, as before", "range",
               [{"reverse": True, "from": "b", "to": "d", "keys_only": True}], [["c", "b1", "b"], None])
    yield call("reverse with a prefix", "range", [{"reverse": True, "prefix": "b", "keys_only": True}],
               [["b1", "b"], None])
    yield call("a limit: next is where to go on", "range", [{"limit": 3, "keys_only": True}], [["B", "a", "b"], "b"])
    yield call("next page", "range", [{"limit": 3, "keys_only": True, "after": "b"}], [["b1", "c", "d"], "d"])
    yield call("last page", "range", [{"limit": 3, "keys_only": True, "after": "d"}], [["e"], None])
    yield call("a page that ends exactly has no next", "range", [{"limit": 7, "keys_only": True}],
               [["B", "a", "b", "b1", "c", "d", "e"], None])
    yield call("reverse: a page", "range", [{"limit": 3, "keys_only": True, "reverse": True}], [["e", "d", "c"], "c"])
    yield call("reverse: after is strictly below", "range",
               [{"limit": 3, "keys_only": True, "reverse": True, "after": "c"}], [["b1", "b", "a"], "a"])
    yield call("from stays where it was while after moves", "range",
               [{"from": "a", "after": "c", "limit": 1, "keys_only": True}], [["d"], "d"])
    yield call("after below from does not widen it", "range", [{"from": "d", "after": "a", "keys_only": True}],
               [["d", "e"], None])
    yield call("a page of a prefix", "range", [{"prefix": "b", "limit": 1, "keys_only": True}], [["b"], "b"])
    yield call("its next", "range", [{"prefix": "b", "limit": 1, "keys_only": True, "after": "b"}], [["b1"], None])
    yield call("to at from: nothing", "range", [{"from": "b", "to": "b"}], [[], None])
    yield call("to below from: nothing", "range", [{"from": "d", "to": "b"}], [[], None])
    yield call("reverse, to below from: nothing", "range", [{"from": "d", "to": "b", "reverse": True}], [[], None])
    yield call("after at to: nothing", "range", [{"after": "b", "to": "b"}], [[], None])
    yield call("after above to: nothing", "range", [{"after": "d", "to": "b"}], [[], None])
    yield call("after above the prefix: nothing", "range", [{"after": "c", "prefix": "b"}], [[], None])
    yield call("reverse, after at from: nothing", "range", [{"reverse": True, "from": "b", "after": "b"}], [[], None])
    yield call("reverse, after below from: nothing", "range", [{"reverse": True, "from": "b", "after": "a"}],
               [[], None])
    yield call("reverse, after above to does not widen it", "range",
               [{"reverse": True, "to": "a", "after": "e", "keys_only": True}], [["B"], None])
    yield call("a bound may begin with 0xFF: nothing is there", "range", [{"from": b"\xff"}], [[], None])
    yield call("nor under such a prefix", "range", [{"prefix": b"\xff\xff"}], [[], None])
    yield call("up to 0xFF is all", "range", [{"to": b"\xff", "keys_only": True, "limit": 1, "reverse": True}],
               [["e"], "e"])
    yield call("a bound as bin", "range", [{"from": b"e"}], [[["e", 4]], None])
    yield call("nor above one that is longer than any key", "range",
               [{"after": Hex("da8001 6b*32769", "32,769 bytes"), "prefix": "k"}], [[], None])
    yield call("a limit above the cap is the cap", "range", [{"limit": 2**64 - 1, "prefix": "e"}], [[["e", 4]], None])
    yield call("count", "count", [], 7)
    yield call("count under a prefix", "count", [{"prefix": "b"}], 2)
    yield call("count under a prefix nobody has", "count", [{"prefix": b"\xff"}], 0)
    yield step("values come as they were set", [notify("set", "b1", Hex("cc01")), request(7, "range", {"prefix": "b1"})],
               [(7, [[["b1", Hex("cc01")]], None])])


@scenario
def deleted_ranges():
    keys = ["log:1", "log:2", "log:3", "log:4", "a", "b", "c", "d", b"e\xff", "m"]
    yield call("ten keys", "set_multi", [[[key, 1] for key in keys]], 1)
    yield call("nothing under a prefix that no key has", "delete_range", [{"prefix": "x"}], [0, None])
    yield call("two of a prefix: next is where to go on", "delete_range", [{"prefix": "log:", "limit": 2}], [2, "log:2"])
    yield call("the rest", "delete_range", [{"prefix": "log:", "limit": 2, "after": "log:2"}], [2, None])
    yield call("each page was one write, and what found nothing was none", "set", ["n", 1], 4)
    yield call("they are gone, the others are not", "range", [{"keys_only": True}],
               [["a", "b", "c", "d", b"e\xff", "m", "n"], None])
    yield call("from is in it, to is not", "delete_range", [{"from": "b", "to": "d"}], [2, None])
    yield call("after is not in it", "delete_range", [{"from": "a", "after": "a", "to": "e"}], [1, None])
    yield call("after below from does not widen it", "delete_range", [{"from": "m", "after": "a", "to": "n"}], [1, None])
    yield call("after above the prefix: nothing", "delete_range", [{"prefix": "a", "after": "b"}], [0, None])
    yield call("to at from: nothing", "delete_range", [{"from": "a", "to": "a"}], [0, None])
    yield call("to below from: nothing", "delete_range", [{"from": "n", "to": "a"}], [0, None])
    yield call("prefix and to", "delete_range", [{"prefix": "n", "to": "n"}], [0, None])
    yield call("a bound may begin with 0xFF: nothing is there", "delete_range", [{"from": b"\xff"}], [0, None])
    yield call("what is left", "range", [{"keys_only": True}], [["a", b"e\xff", "n"], None])
    yield call("next is bin when it is not UTF-8", "delete_range", [{"from": "b", "limit": 1}], [1, b"e\xff"])
    yield call("a page that ends exactly has no next", "delete_range", [{"from": "n", "limit": 1}], [1, None])
    yield call("in a batch it sees what was written before it", "batch",
               [[["set", ["p1", 1]], ["delete_range", [{"prefix": "p"}]], ["set", ["p2", 1]], ["count", []]]],
               [10, [1, None], 10, 2])
    yield call("a batch that is refused deletes nothing", "batch",
               [[["delete_range", [{"prefix": ""}]], ["incr", ["none"]]]], Error("NOT_FOUND", index=1))
    yield call("durability within is the batch's alone", "batch",
               [[["delete_range", [{"prefix": "p", "durability": "memory"}]]]], argument("durability", index=0))
    yield call("one change each, with the seq of the write", "changes", [9],
               [[["p1", [10, "set", 0, 3, 9, None, "synced"], 1], ["p1", [10, "delete", 1, 3, 10, None, "synced"], None],
                 ["p2", [10, "set", 2, 3, 10, None, "synced"], 1]], 10])
    yield call("the empty prefix is every key", "delete_range", [{"prefix": "", "durability": "stored"}], [2, None])
    yield call("nothing is left", "count", [], 0)
    yield call("it took no more than one seq", "set", ["a", 1], 12)
    yield call("a limit above the cap is the cap", "delete_range", [{"to": "b", "limit": 2**64 - 1}], [1, None])


@scenario
def batches():
    yield call("of nothing", "batch", [[]], [])
    yield call("writes and reads", "batch",
               [[["set", ["a", 1]], ["get", ["a"]], ["incr", ["a"]], ["delete", ["none"]], ["count", []],
                 ["range", [{"keys_only": True}]], ["set_multi", [[["b", 1], ["c", 2]]]],
                 ["get_multi", [["a", "c"]]], ["delete_multi", [["b", "c"]]], ["decr", ["a", {"delta": 4}]],
                 ["delete", ["a", {"return_value": True}]], ["set", ["z", 0]]]],
               [1, 1, 2, False, 1, [["a"], None], 1, [["a", 2], ["c", 2]], 2, -2, -2, 1])
    yield call("one seq", "get", ["z", {"meta": True}], [0, 1, None, "synced"])
    yield call("the next seq", "set", ["y", 0], 2)
    yield call("only reads: no seq", "batch", [[["get", ["z"]], ["count", []]]], [0, 2])
    yield call("so the next is", "set", ["y", 0], 3)
    yield call("an error undoes all", "batch", [[["set", ["new", 1]], ["delete", ["y"]], ["incr", ["none"]]]],
               Error("NOT_FOUND", index=2))
    yield call("all of it", "range", [], [[["y", 0], ["z", 0]], None])
    yield call("and took no seq", "set", ["x", 1], 4)
    yield call("a condition", "batch", [[["set", ["w", 1]], ["set", ["x", 1, {"if": "absent"}]]]],
               Error("CONFLICT", seq=4, index=1))
    yield call("a number that is none", "batch", [[["set", ["w", "one"]], ["incr", ["w"]]]],
               Error("NOT_A_NUMBER", index=1))
    yield call("something appended to a number", "batch", [[["set", ["w", 1]], ["append", ["w", "x"]]]], Error("WRONG_TYPE", index=1))
    yield call("a number too large", "batch", [[["set", ["w", 2**64 - 1]], ["incr", ["w"]]]], Error("OVERFLOW", index=1))
    yield call("a condition sees what the batch wrote", "batch",
               [[["set", ["w", 1]], ["set", ["w", 2, {"if": "present"}]], ["delete", ["w", {"if": "present"}]],
                 ["set", ["w", 3, {"if": "absent"}]]]], [5, 5, True, 5])
    yield call("meta within shows the batch's own seq and level", "batch",
               [[["set", ["w", 4]], ["get", ["w", {"meta": True}]]], {"durability": "stored"}],
               [6, [4, 6, None, "stored"]])
    yield call("a wrong argument", "batch", [[["get", ["a"]], ["get", [1]]]], argument("key", index=1))
    yield call("a key", "batch", [[["get", [b"\xff"]]]], Error("BAD_KEY", index=0))
    yield call("a method nobody has", "batch", [[["fly", []]]], Error("UNKNOWN_METHOD", index=0))
    for method in ("batch", "compact", "flush", "hello", "ping", "stats"):
        params = [[]] if method == "batch" else []
        yield call("not in a batch: " + method, "batch", [[[method, params]]], argument("method", index=0))
    yield call("durability within is the batch's alone", "batch", [[["set", ["a", 1, {"durability": "memory"}]]]],
               argument("durability", index=0))
    yield call("text may be bin: a method", "batch", [[[b"get", ["none"]]]], [None])
    yield call("key_prefix within is fine", "batch", [[["set", ["a", 1, {"key_prefix": "p:"}]]]], [7])
    for name, command in (("no array", 1), ("no params", ["get"]), ("an id too many", ["get", [], 1]),
                          ("a method that is a number", [1, ["a"]]), ("params that are a map", ["get", {}])):
        yield call("a command in it: " + name, "batch", [[["get", ["a"]], command]], argument("commands", index=1))
    yield call("nothing of that was done", "count", [], 5)


# --- Times to live, and the history ------------------------------------------------------------------------------


@scenario
def expiry():
    yield call("set with a time to live", "set", ["a", 1, {"ttl_ms": 3600000}], 1)
    yield call("touch", "touch", ["a", 7200000], True)
    yield call("nil takes it away", "touch", ["a", None], True)
    yield call("as meta shows", "get", ["a", {"meta": True}], [1, 3, None, "synced"])
    yield call("a touch writes, so it has a durability", "touch", ["a", None, {"durability": "stored"}], True)
    yield call("touch of a missing key", "touch", ["none", 1000], False)
    yield call("took no seq", "set", ["a", 2], 5)
    yield call("pairs", "set_multi", [[["p", 1], ["q", 2]], {"ttl_ms": 3600000}], 6)
    yield call("a counter", "incr", ["n", {"initial": 1, "ttl_ms": 3600000}], 1)
    yield call("a set without ttl_ms ends the life's limit", "set", ["p", 1], 8)
    yield call("so", "get", ["p", {"meta": True}], [1, 8, None, "synced"])
    yield call("in a batch", "batch", [[["touch", ["q", None]], ["get", ["q", {"meta": True}]]]],
               [True, [2, 9, None, "synced"]])
    yield call("a life as long as can be said", "set", ["a", 1, {"ttl_ms": 2**64 - 1}], 10)
    for value in (0, -1, 1.5, "1", True):
        yield call(f"ttl_ms: {value!r}", "set", ["a", 1, {"ttl_ms": value}], argument("ttl_ms"))
    far = 2**63
    yield call("an end in time", "set", ["x", 1, {"expires_at_ms": far}], 11)
    yield call("is not yet", "get", ["x"], 1)
    yield call("a set that answers the old value", "set", ["x", 2, {"return_value": True, "ttl_ms": 3600000}], 1)
    yield call("nil where there is none", "set", ["y", 1, {"return_value": True}], None)
    yield call("false is the seq", "set", ["y", [2], {"return_value": False}], 14)
    yield call("with a condition that fails", "set", ["y", 3, {"return_value": True, "if": "absent"}],
               Error("CONFLICT", seq=14))
    yield call("in a batch", "batch", [[["set", ["y", 3, {"return_value": True}]], ["get", ["y"]]]], [[2], 3])
    yield call("an end in time that has passed deletes", "set", ["x", 3, {"expires_at_ms": 1}], 16)
    yield call("so", "get", ["x"], None)
    yield call("as one change", "changes", [15], [[["x", [16, "delete", 0, 1, 15, None, "synced"], None]], 16])
    yield call("of a missing key: it takes no seq", "set", ["x", 3, {"expires_at_ms": 0}], 16)
    yield call("and tells the old value", "set", ["y", 4, {"expires_at_ms": 1, "return_value": True}], 3)
    yield call("pairs", "set_multi", [[["y", 1], ["x", 1]], {"expires_at_ms": 1}], 17)
    yield call("pairs, until then", "set_multi", [[["y", 1], ["x", 1]], {"expires_at_ms": far}], 18)
    yield call("a counter answers its number", "incr", ["y", {"expires_at_ms": 1}], 2)
    yield call("and is gone", "decr", ["y"], Error("NOT_FOUND"))
    yield call("text too", "append", ["z", "one", {"expires_at_ms": 1}], 3)
    yield call("was never there", "get", ["z"], None)
    yield call("touch, until then", "touch", ["x", None, {"expires_at_ms": far}], True)
    yield call("touch, passed", "touch", ["x", None, {"expires_at_ms": 1}], True)
    yield call("touch, missing", "touch", ["x", None, {"expires_at_ms": 1}], False)
    for method, params in (("set", ["x", 1]), ("set_multi", [[]]), ("incr", ["x"]), ("decr", ["x"]), ("append", ["x", ""])):
        yield call(f"both at once: {method}", method, params + [{"ttl_ms": 1, "expires_at_ms": far}],
                   argument("expires_at_ms"))
        yield call(f"the other way round: {method}", method, params + [{"expires_at_ms": far, "ttl_ms": 1}],
                   argument("expires_at_ms"))
        yield call(f"expires_at_ms is wrong: {method}", method, params + [{"expires_at_ms": -1}], argument("expires_at_ms"))
    yield call("both at once: touch", "touch", ["x", 1, {"expires_at_ms": far}], argument("expires_at_ms"))
    yield call("return_value is wrong", "set", ["x", 1, {"return_value": 1}], argument("return_value"))
    yield call("touch: a key that may not be", "touch", [b"\xff", 1], Error("BAD_KEY"))
    yield call("touch: 0", "touch", ["a", 0], argument("ttl_ms"))
    yield call("touch: key is missing", "touch", [], argument("key"))
    yield call("touch: ttl_ms is missing", "touch", ["a"], argument("ttl_ms"))
    yield call("touch: unknown option", "touch", ["a", None, {"if": "present"}], argument("if"))
    yield call("touch: one argument too many", "touch", ["a", None, {}, 1], argument("params"))


@scenario
def levels():
    yield call("a write at queued", "set", ["a", 1, {"durability": "queued"}], 1)
    yield call("wait until it is synced", "wait", [1, "synced"], True)
    yield call("it still is", "wait", [1, "stored", {"timeout_ms": 0}], True)
    yield call("at any level below", "wait", [1, "memory"], True)
    yield call("seq 0 is always reached", "wait", [0, "synced"], True)
    yield call("one that nobody wrote yet", "wait", [2, "memory", {"timeout_ms": 1}], False)
    yield call("seq must be unsigned", "wait", [-1, "synced"], argument("seq"))
    yield call("seq is missing", "wait", [], argument("seq"))
    yield call("level is missing", "wait", [1], argument("level"))
    yield call("level is none", "wait", [1, "soon"], argument("level"))
    yield call("timeout_ms is wrong", "wait", [1, "synced", {"timeout_ms": -1}], argument("timeout_ms"))
    yield call("unknown option", "wait", [1, "synced", {"colour": 1}], argument("colour"))
    yield call("not in a batch", "batch", [[["wait", [1, "synced"]]]], argument("method", index=0))


@scenario
def history():
    def change(key, seq, op, index, count, prev, value, level="synced", ttl_ms=None):
        return [key, [seq, op, index, count, prev, ttl_ms, level], value]

    yield call("nothing yet", "changes", [0], [[], 0])
    yield call("one", "set", ["a", Hex("cc01")], 1)
    yield call("and two at once", "set_multi", [[["b", 2], ["other", 3]]], 2)
    yield call("and a delete", "delete", ["b"], True)
    one, two = change("a", 1, "set", 0, 1, 0, Hex("cc01")), change("b", 2, "set", 0, 2, 1, 2)
    three, four = change("other", 2, "set", 1, 2, 2, 3), change("b", 3, "delete", 0, 1, 2, None)
    yield call("all, values byte for byte", "changes", [0], [[one, two, three, four], 3])
    yield call("after the first", "changes", [1], [[two, three, four], 3])
    yield call("after the last: none", "changes", [3], [[], 3])
    yield call("under a prefix: prev skips what is not in it", "changes", [0, {"prefix": "b"}],
               [[change("b", 2, "set", 0, 2, 0, 2), four], 3])
    yield call("a limit keeps a write whole", "changes", [1, {"limit": 1}], [[two, three], 2])
    yield call("a wait that has no need to", "changes", [2, {"wait_ms": 10000}], [[four], 3])
    yield call("a wait that ends", "changes", [3, {"wait_ms": 1}], [[], 3])
    yield call("a seq that nobody wrote yet", "changes", [4], Error("OTHER_HISTORY", seq=3))
    yield call("the same with a wait", "changes", [9, {"wait_ms": 10000}], Error("OTHER_HISTORY", seq=3))
    yield call("a touch", "touch", ["a", 7200000], True)
    yield call("carries no value", "changes", [3], [[change("a", 4, "touch", 0, 1, 3, None, ttl_ms=7200000)], 4])
    yield call("a value of level memory", "set", ["m", 1, {"durability": "memory"}], 5)
    yield call("a touch of it", "touch", ["m", None, {"durability": "synced"}], True)
    yield call("is of level memory too", "get", ["m", {"meta": True}], [1, 6, None, "memory"])
    yield call("a touch at level memory of another", "touch", ["a", None, {"durability": "memory"}], True)
    yield call("does not make that forgettable", "get", ["a", {"meta": True}], [Hex("cc01"), 7, None, "queued"])
    yield call("until the log has it", "wait", [7, "stored"], True)
    yield call("after_seq is missing", "changes", [], argument("after_seq"))
    yield call("a prefix as long as a key may be", "changes", [0, {"prefix": Hex("da8000 70*32768", "a prefix of 32,768 bytes")}],
               [[], 7])
    yield call("a longer one", "changes", [0, {"prefix": Hex("da8001 70*32769", "a prefix of 32,769 bytes")}],
               argument("prefix"))
    yield call("after_seq is wrong", "changes", ["0"], argument("after_seq"))
    yield call("limit 0", "changes", [0, {"limit": 0}], argument("limit"))
    yield call("prefix is wrong", "changes", [0, {"prefix": 1}], argument("prefix"))
    yield call("wait_ms is wrong", "changes", [0, {"wait_ms": -1}], argument("wait_ms"))
    yield call("unknown option", "changes", [0, {"colour": 1}], argument("colour"))
    yield call("not in a batch", "batch", [[["changes", [0]]]], argument("method", index=0))


# --- Writing them ------------------------------------------------------------------------------------------------


def text(steps):
    lines = [json.dumps(one, ensure_ascii=False) for one in steps]
    pretty = []
    for one, line in zip(steps, lines):
        inner = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in one.items())
        pretty.append("  {\n" + inner + "\n  }")
    return "[\n" + ",\n".join(pretty) + "\n]\n"


def main():
    stale = []
    for name, steps in FILES.items():
        path = HERE / name
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text(steps):
                stale.append(name)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text(steps))
    if stale:
        sys.exit("stale, run proto/vectors/make.py: " + ", ".join(stale))
    print(f"{len(FILES)} files, {sum(map(len, FILES.values()))} steps")


if __name__ == "__main__":
    main()
