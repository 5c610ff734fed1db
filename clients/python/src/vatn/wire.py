"""Frames: Python values to bytes and back."""

from __future__ import annotations

from typing import Any

import msgpack

from .errors import ProtocolError, Unreadable, VatnError, from_wire

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2

# surrogateescape: a str that is not UTF-8 comes in as something that goes out as the same bytes.
READING: dict[str, Any] = {"strict_map_key": False, "unicode_errors": "surrogateescape"}


def pack(value: Any) -> bytes:
    return msgpack.packb(value, unicode_errors="surrogateescape")


def unpack(frame: bytes) -> Any:
    """One value. Arrays and maps that are keys of a map become tuples; what Python has no value for is Unreadable."""
    try:
        return msgpack.unpackb(frame, **READING)
    except TypeError:
        pass
    except ValueError as fault:
        raise Unreadable(frame, fault) from fault
    try:
        return msgpack.unpackb(frame, object_pairs_hook=lambda pairs: {_frozen(k): v for k, v in pairs}, **READING)
    except ValueError as fault:
        raise Unreadable(frame, fault) from fault


def _frozen(key: Any) -> Any:
    if isinstance(key, list):
        return tuple(map(_frozen, key))
    if isinstance(key, dict):
        return tuple((_frozen(k), _frozen(v)) for k, v in key.items())
    return key


def request(id: int, method: str, params: list[Any]) -> bytes:
    return pack([REQUEST, id, method, params])


def notification(method: str, params: list[Any]) -> bytes:
    return pack([NOTIFICATION, method, params])


def response(frame: bytes) -> tuple[int | None, VatnError | None, Any]:
    """(id, error, result) of a response frame. A result that Python cannot hold is the error Unreadable."""
    try:
        kind, id, error, result = unpack(frame)
    except (Unreadable, TypeError, ValueError):
        kind, id, error, result = _piecewise(frame)
    if kind != RESPONSE:
        raise ProtocolError(f"an answer of type {kind}: {frame[:64]!r}")
    if isinstance(error, list):
        return id, from_wire(error), None
    return id, error, result


def _piecewise(frame: bytes) -> tuple[Any, Any, Any, Any]:
    unpacker = msgpack.Unpacker(**READING)
    unpacker.feed(frame)
    try:
        if unpacker.read_array_header() != 4:
            raise ValueError("not four elements")
        kind, id, error = unpacker.unpack(), unpacker.unpack(), unpacker.unpack()
        raw = frame[unpacker.tell():]
        if not raw:
            raise ValueError("no result")
    except (ValueError, msgpack.OutOfData) as fault:
        raise ProtocolError(f"an answer that is no response: {frame[:64]!r}") from fault
    try:
        return kind, id, error, unpack(raw)
    except Unreadable as unreadable:
        return kind, id, error or unreadable, None


def key_bytes(key: str | bytes) -> bytes:
    """A key's bytes."""
    return key.encode() if isinstance(key, str) else key


def key_text(key: bytes) -> str | bytes:
    """A key as the protocol gives it: str when it is UTF-8, else bytes."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key
