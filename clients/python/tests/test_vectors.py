"""The client's own encoder and decoder against the vectors."""

import json

import msgpack
import pytest
import vectors
import vatn
from vatn import wire
from vatn.commands import Commands
from vatn.errors import BY_CODE, from_wire


class Recorder(Commands):
    """The bytes that the client would send."""

    def _call(self, method, params, result=None):
        return wire.request(7, method, params), result


def as_keywords(options):
    return {name + "_" if name in ("if", "from") else name: value for name, value in options.items()}


def requests_of(name):
    """(method, positional, options, frame) of the requests that the client would make itself."""
    described = {command["name"]: command for command in COMMANDS}
    for step in vectors.steps(name):
        if len(step["request"]) == len(step["reply"]) == 1 and isinstance(step["reply"][0], str):
            frame = vectors.octets(step["request"][0])
            try:
                kind, id, method, params = wire.unpack(frame)
            except vatn.Unreadable:
                continue  # a value that Python cannot hold cannot be sent
            positional = len(described.get(method, {"arguments": []})["arguments"])
            if method not in described or method == "ping" or id != 7 or len(params) < positional:
                continue
            if wire.pack([kind, id, method, params]) != frame:
                continue
            options = params[positional] if len(params) > positional else {}
            if options or len(params) == positional:
                yield method, params[:positional], options, frame


COMMANDS = json.loads((vectors.DIRECTORY.parent / "commands.json").read_text())["commands"]


def test_each_method_sends_the_bytes_of_the_vectors():
    tried = set()
    for name in vectors.files():
        for method, positional, options, frame in requests_of(name):
            if None in options.values() or False in options.values() or b"durability" in options:
                continue
            try:
                sent, _ = getattr(Recorder(), method)(*positional, **as_keywords(options))
            except vatn.InvalidArgument:
                continue  # keys that are str and not UTF-8: here they are given as bytes
            # Options may come in another order; everything else is byte for byte.
            assert sorted(sent) == sorted(frame) and wire.unpack(sent) == wire.unpack(frame), f"{name}: {method}"
            assert sent == frame or len(options) > 1, f"{name}: {method}"
            tried.add(method)
    assert tried >= {command["name"] for command in COMMANDS} - {"hello", "ping", "flush", "compact", "stats"}


def test_methods_outside_the_vectors_send_the_expected_bytes():
    recorder = Recorder()
    assert recorder.flush()[0] == msgpack.packb([0, 7, "flush", []])
    assert recorder.compact()[0] == msgpack.packb([0, 7, "compact", []])
    assert recorder.stats()[0] == msgpack.packb([0, 7, "stats", []])
    assert recorder.ping("x")[0] == msgpack.packb([0, 7, "ping", ["x"]])
    assert recorder.hello(client="me")[0] == msgpack.packb([0, 7, "hello", [{"client": "me"}]])


@pytest.mark.parametrize("name", vectors.files())
def test_every_reply_is_understood(name):
    for step in vectors.steps(name):
        for notation in step["reply"]:
            if not isinstance(notation, str) or not notation:
                continue
            frame = vectors.octets(notation)
            id, error, result = wire.response(frame)
            assert isinstance(id, int) and error is None
            if isinstance(result, vatn.Unreadable):
                assert frame.endswith(result.bytes)


def test_every_error_code_is_an_exception():
    codes = [error["code"] for error in json.loads((vectors.DIRECTORY.parent / "commands.json").read_text())["errors"]]
    assert sorted(codes) == sorted(BY_CODE)
    for code in codes:
        error = from_wire([code, "words", {"index": 3}])
        assert (error.code, error.index, str(error)) == (code, 3, f"{code}: words")
        assert getattr(vatn, type(error).__name__) is type(error)
    assert type(from_wire(["NEWS", "words", {}])) is vatn.CommandError


def test_a_map_whose_keys_are_arrays_can_be_read():
    packed = bytes.fromhex("82" "01a3696e74" "929101029103")
    assert wire.unpack(packed) == {1: "int", ((1,), 2): [3]}
    assert wire.pack(wire.unpack(packed)) == packed


def test_an_answer_that_is_no_response_is_reported():
    for frame in (b"", b"\xc1", b"\x93\x01\x07\xc0", b"\x94\x00\x07\xc0\xc0", b"\x94\x01\x07\xc0",
                  b"\x94\x01\x90\xc0\xc0", b"\x94\x01\x07\x90\xc0", b"\x94\x01\x07\x93\x01\x02\x03\xc0"):
        with pytest.raises(vatn.VatnError):
            wire.response(frame)
