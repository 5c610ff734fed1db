"""Frames: Python values to bytes and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from . import shapes
from .errors import ProtocolError, Unreadable, VatnError, from_wire
from .shapes import Shape, unpack
from .writable import pack

__all__ = ["key_bytes", "key_text", "notification", "pack", "request", "response", "unpack"]

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2


def request(id: int, method: str, params: list[Any]) -> bytes:
    return pack([REQUEST, id, method, params], method)


def notification(method: str, params: list[Any]) -> bytes:
    return pack([NOTIFICATION, method, params], method)


def response(
    frame: bytes, shape_of: Callable[[int | None], Shape] = lambda _: shapes.value
) -> tuple[int | None, VatnError | None, Any]:
    """(id, error, result) of a response frame. `shape_of` an id says where values stand in the result: one that Python
    cannot hold is an Unreadable in its place."""
    try:
        fields = unpack(frame)
    except Unreadable:
        fields = _in_parts(frame, shape_of)
    if not isinstance(fields, list) or len(fields) != 4 or fields[0] != RESPONSE:
        raise ProtocolError(f"an answer that is no response: {frame[:64]!r}")
    _, id, error, result = fields
    if not isinstance(id, (int, type(None))) or not isinstance(error, (list, type(None))):
        raise ProtocolError(f"an answer that is no response: {frame[:64]!r}")
    if error is not None:
        return id, from_wire(error), None
    return id, None, result


def _in_parts(frame: bytes, shape_of: Callable[[int | None], Shape]) -> list[Any]:
    try:
        cursor = shapes.Cursor(frame)
        if cursor.array() != 4:
            return []
        kind, id, error = (shapes.value(cursor) for _ in range(3))
        begin = cursor.position()
        try:
            result = shape_of(id)(cursor)
        except ValueError:
            # An answer of a shape that this version does not know.
            result = shapes.value(shapes.Cursor(frame[begin:]))
    except (ValueError, TypeError, msgpack.OutOfData) as fault:
        raise ProtocolError(f"an answer that is no response: {frame[:64]!r}") from fault
    return [kind, id, error, result]


def key_bytes(key: str | bytes) -> bytes:
    """A key's bytes."""
    return key.encode() if isinstance(key, str) else bytes(key)


def key_text(key: bytes) -> str | bytes:
    """A key as the protocol gives it: str when it is UTF-8, else bytes."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key
