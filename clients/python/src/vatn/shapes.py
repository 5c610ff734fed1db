"""Reading: MessagePack to Python values, and the places in an answer that hold values of clients.

A value that Python cannot hold must not hide its neighbours. So an answer that cannot be read as a whole is read in
parts, by its shape, and each value that is unreadable becomes an `Unreadable` in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from .errors import Unreadable


def _as_dict(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    try:
        made = dict(pairs)
    except TypeError:
        made = {_hashable(key): value for key, value in pairs}
    if len(made) != len(pairs):
        raise ValueError("a map with keys that are equal in Python")
    return made


def _hashable(key: Any) -> Any:
    if isinstance(key, dict):
        raise ValueError("a map with a map as a key")
    return tuple(map(_hashable, key)) if isinstance(key, list) else key


# surrogateescape: a str that is not UTF-8 is read as one that is written as the same bytes.
READING: dict[str, Any] = {
    "strict_map_key": False, "unicode_errors": "surrogateescape", "object_pairs_hook": _as_dict,
}


def unpack(frame: bytes) -> Any:
    """One value. Arrays that are keys of a map become tuples; values without an equal in Python become Unreadable."""
    try:
        return msgpack.unpackb(frame, **READING)
    except Exception as fault:  # of the codec, whatever it is
        raise Unreadable(bytes(frame), str(fault) or type(fault).__name__) from fault


class Cursor:
    """A position in a frame that is read in parts."""

    def __init__(self, frame: bytes) -> None:
        self._frame = frame
        self._unpacker = msgpack.Unpacker(max_buffer_size=max(1, len(frame)))
        self._unpacker.feed(frame)

    def position(self) -> int:
        return self._unpacker.tell()

    def array(self) -> int:
        """Enters an array; returns how many elements it has. ValueError for any other value."""
        return self._unpacker.read_array_header()

    def is_nil(self) -> bool:
        return self._frame[self.position():self.position() + 1] == b"\xc0"

    def raw(self) -> bytes:
        """Skips a value; returns its bytes."""
        begin = self.position()
        self._unpacker.skip()
        return self._frame[begin:self.position()]


Shape = Callable[[Cursor], Any]


def value(cursor: Cursor) -> Any:
    try:
        return unpack(cursor.raw())
    except Unreadable as unreadable:
        return unreadable


def array(*shapes: Shape, rest: Shape = value) -> Shape:
    """An array whose first elements have these shapes, and the rest the shape `rest`."""

    def read(cursor: Cursor) -> list[Any]:
        return [(shapes[n] if n < len(shapes) else rest)(cursor) for n in range(cursor.array())]

    return read


def entry(cursor: Cursor) -> Any:
    """[value, seq, …], or nil."""
    return value(cursor) if cursor.is_nil() else array()(cursor)


PAIRS = array(rest=array())
PAGE, PAGE_META = array(PAIRS), array(array(rest=array(value, entry)))


def of(method: str | bytes, params: Sequence[Any]) -> Shape:
    """The shape of the answer to a command."""
    if isinstance(method, bytes):
        method = method.decode(errors="replace")
    options = params[-1] if params and isinstance(params[-1], dict) else {}
    has_meta = bool(options.get("meta") or options.get(b"meta"))
    if method == "get":
        return entry if has_meta else value
    if method == "get_multi":
        return PAIRS
    if method == "range":
        is_keys = options.get("keys_only") or options.get(b"keys_only")
        return array(array()) if is_keys else PAGE_META if has_meta else PAGE
    if method == "changes":
        return PAGE
    if method == "batch":
        return array(*(of(name, inner) for name, inner in params[0]))
    return value
