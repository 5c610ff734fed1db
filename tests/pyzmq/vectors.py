"""Reads proto/vectors and compares; the format is in its README."""

import json
import pathlib

import msgpack

DIRECTORY = pathlib.Path(__file__).parents[2] / "proto" / "vectors"


def files():
    """The names of the files."""
    return [path.name for path in sorted(DIRECTORY.glob("*.json"))]


def steps(name):
    return json.loads((DIRECTORY / name).read_text())


def octets(notation):
    """The bytes of a frame: hexadecimal words, `61*3` being 61 three times."""
    words = (word.partition("*") for word in notation.split())
    return b"".join(bytes.fromhex(digits) * int(times or 1) for digits, _, times in words)


def decode(frame):
    return msgpack.unpackb(frame, strict_map_key=False)


def mismatch(expected, frame):
    """The difference between a reply frame and the expected one; None without any."""
    if isinstance(expected, str):
        return None if frame == octets(expected) else f"{frame.hex()} instead of {octets(expected).hex()}"
    try:
        kind, id, error, result = decode(frame)
    except Exception as fault:
        return f"{frame.hex()} is no response: {fault}"
    if "error" in expected:
        wanted = [expected["error"], expected["id"], expected["details"]]
        if error is None or [error[0], id, error[2]] != wanted or not isinstance(error[1], str):
            return f"{[kind, id, error, result]} instead of {wanted}"
        return None
    wanted_kind, wanted_id, wanted_error, wanted_result = expected["decoded"]
    if [kind, id, error] != [wanted_kind, wanted_id, wanted_error]:
        return f"{[kind, id, error]} instead of {[wanted_kind, wanted_id, wanted_error]}"
    if expected["ignore"] == ["*"]:
        return None
    for name, value in wanted_result.items():
        if name not in result:
            return f"{name} is missing in {result}"
        if name not in expected["ignore"] and result[name] != value:
            return f"{name} is {result[name]!r} instead of {value!r}"
    return None
