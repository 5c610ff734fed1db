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
    """What the client would send."""

    def _call(self, method, params, result=None):
        return wire.request(7, method, params), result


def as_keywords(options):
    return {name + "_" if name in ("if", "from") else name: value for name, value in options.items()}


def requests_of(name):
    """(method, positional, options, frame) of the requests that a client would make itself."""
    described = {command["name"]: command for command in COMMANDS}
    for step in vectors.steps(name):
        if len(step["request"]) == len(step["reply"]) == 1 and isinstance(step["reply"][0], str):
            frame = vectors.octets(step["request"][0])
            kind, id, method, params = wire.unpack(frame)
            positional = len(described.get(method, {"arguments": []})["arguments"])
            if method not in described or method == "ping" or id != 7 or wire.pack([kind, id, method, params]) != frame or len(params) < positional:
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
            sent, _ = getattr(Recorder(), method)(*positional, **as_keywords(options))
            # Options may come in another order; everything else is byte for byte.
            assert sorted(sent) == sorted(frame) and wire.unpack(sent) == wire.unpack(frame), f"{name}: {method}"
            assert sent == frame or len(options) > 1, f"{name}: {method}"
            tried.add(method)
    assert tried >= {command["name"] for command in COMMANDS} - {"hello", "ping", "flush", "stats"}


def test_the_methods_without_params_send_what_they_should():
    recorder = Recorder()
    assert recorder.flush()[0] == msgpack.packb([0, 7, "flush", []])
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
            assert isinstance(id, int)
            if notation.endswith("d48000"):
                assert isinstance(error, vatn.Unreadable) and frame.endswith(error.raw)
            else:
                assert error is None


def test_every_error_code_is_an_exception():
    codes = [error["code"] for error in json.loads((vectors.DIRECTORY.parent / "commands.json").read_text())["errors"]]
    assert sorted(codes) == sorted(BY_CODE)
    for code in codes:
        error = from_wire([code, "words", {"index": 3}])
        assert (error.code, error.index, str(error)) == (code, 3, f"{code}: words")
        assert getattr(vatn, type(error).__name__) is type(error)
    assert type(from_wire(["NEWS", "words", {}])) is vatn.CommandError


def test_a_map_whose_keys_are_arrays_or_maps_can_be_read():
    packed = bytes.fromhex("83" "01a3696e74" "9101a3617272" "8101029103")
    assert wire.unpack(packed) == {1: "int", (1,): "arr", ((1, 2),): [3]}


def test_what_python_has_no_value_for_keeps_its_bytes_and_disturbs_no_other():
    id, error, _ = wire.response(bytes.fromhex("940107c0c705ff0102030405"))
    assert (id, type(error), error.raw) == (7, vatn.Unreadable, bytes.fromhex("c705ff0102030405"))


def test_an_answer_that_is_no_response_is_said():
    for frame in (b"", b"\xc1", b"\x93\x01\x07\xc0", b"\x94\x00\x07\xc0\xc0", b"\x94\x01\x07\xc0"):
        with pytest.raises(vatn.VatnError):
            wire.response(frame)
