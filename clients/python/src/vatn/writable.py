"""Writing: Python values to MessagePack. A value that would not come back equal is refused, with the path to it."""

from __future__ import annotations

import enum
from typing import Any

import msgpack

from .errors import Unwritable

# The start of a path, by the place in a command's params.
NAMES = {"set": ("key", "value"), "set_multi": ("pairs",), "batch": ("commands",), "ping": ("payload",)}
DEPTH = 64
LEAST, MOST = -(2**63), 2**64 - 1
INSTEAD = {
    "Decimal": "store str(…)", "datetime": "store msgpack.Timestamp.from_datetime(…), or isoformat()",
    "date": "store isoformat()", "UUID": "store str(…) or .bytes", "set": "store a sorted list",
    "frozenset": "store a sorted list",
}


def pack(value: Any, method: str = "") -> bytes:
    """The bytes of a value, or of the frame of a command."""
    for place, param in enumerate(value[-1] if method else [value]):
        # The codec reads the memory of any memoryview: finding one inside a value would take a walk.
        if type(param) is memoryview and param.format not in ("B", "c"):
            name = dict(enumerate(NAMES.get(method, ()))).get(place, "the value")
            raise Unwritable(name, "a memoryview of what is no bytes would come back as bytes: give bytes(…)")
    try:
        return msgpack.packb(value, strict_types=True, default=_plain)
    except Exception as fault:  # of the codec, whatever it is; what is wrong is found out here
        found = _fault(value, "", 0) if not method else _fault_in_frame(value, method)
        if found is None and isinstance(fault, UnicodeEncodeError):
            # A str that is not Unicode, but was read from bytes and stands for them.
            return msgpack.packb(value, strict_types=True, default=_plain, unicode_errors="surrogateescape")
        raise Unwritable(*(found or (method or "the value", str(fault)))) from fault


def _plain(value: Any) -> Any:
    """Converts a value of another type to an equal one of MessagePack. (A tuple comes back as a list, a bytearray
    and a memoryview as bytes.)"""
    if type(value) is tuple:
        return list(value)
    if isinstance(value, int) and not LEAST <= value <= MOST:
        raise OverflowError
    if _own_members(value):
        raise TypeError
    # Subclasses whose instances are equal to the plain value. Their own methods may return something else.
    for kind, convert in (
        (int, int.__int__), (float, float.__float__), (str, str.__str__), (bytes, bytes_of), (bytearray, bytes_of),
        (list, lambda given: list.__getitem__(given, slice(None))), (dict, lambda given: dict(dict.items(given))),
    ):
        if isinstance(value, kind):
            return convert(value)
    raise TypeError


def _own_members(value: Any) -> list[str]:
    """The members of a subclass's instance besides its plain value. (An enum member has its name.)"""
    return [] if isinstance(value, enum.Enum) else list(getattr(value, "__dict__", ()))


def bytes_of(value: Any) -> bytes:
    return memoryview(value).tobytes()


def _fault_in_frame(frame: list[Any], method: str) -> tuple[str, str] | None:
    params = frame[-1]
    names = NAMES.get(method, ())
    for place, param in enumerate(params):
        if place < len(names):
            found = _fault(param, names[place], 0)
        elif isinstance(param, dict):
            found = next(filter(None, (_fault(given, str(name), 0) for name, given in param.items())), None)
        else:
            found = _fault(param, f"params[{place}]", 0)
        if found:
            return found
    return None


def _fault(value: Any, path: str, depth: int) -> tuple[str, str] | None:
    """The path to the first part that cannot be stored, and the reason."""
    kind = type(value)
    if isinstance(value, (int, float, str, bytes, bytearray, list, dict)) and (own := _own_members(value)):
        return path or "the value", f"a {kind.__name__} has attributes of its own, which would not come back: {own[0]}"
    if depth > DEPTH:
        return path[:40] + "…", f"it nests deeper than {DEPTH} levels, or holds itself"
    if isinstance(value, dict):
        for key, item in dict.items(value):
            found = _fault(key, f"a key of {path or 'the value'}", depth + 1)
            found = found or _fault(item, f"{path}[{key!r:.80}]", depth + 1)
            if found:
                return found
        return None
    if isinstance(value, list) or kind is tuple:
        parts = (_fault(item, f"{path}[{place}]", depth + 1) for place, item in enumerate(value))
        return next(filter(None, parts), None)
    reason = _reason(value, kind)
    return (path or "the value", reason) if reason else None


def _reason(value: Any, kind: type) -> str | None:
    if isinstance(value, int):
        return None if LEAST <= value <= MOST else "an integer of more than 64 bits"
    if isinstance(value, str):
        return None if is_text(str.__str__(value)) else "a str that is not Unicode: it has half a surrogate pair"
    if isinstance(value, tuple) and kind is not msgpack.ExtType:
        return f"a {kind.__name__} would come back as a list, without its names"
    if value is None or isinstance(value, (float, bytes, bytearray, memoryview, msgpack.ExtType, msgpack.Timestamp)):
        return None if _can_pack(value) else f"{value!r:.80} is out of range"
    hint = INSTEAD.get(kind.__name__, "store what it is made of: None, bool, int, float, str, bytes, list or dict")
    return f"a {kind.__name__} would not come back as one: {hint}"


def is_text(value: str) -> bool:
    """Whether it is Unicode, or a str read from bytes that are not UTF-8."""
    try:
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") == value
    except UnicodeError:
        return False


def _can_pack(value: Any) -> bool:
    try:
        msgpack.packb(value, strict_types=True, default=_plain)
    except Exception:
        return False
    return True
