"""Arguments: a value that a mistake would change in silence is refused before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Union

from .errors import InvalidArgument

Key = Union[str, bytes]
TEXT = (str, bytes, bytearray, memoryview)


def key(given: Any, name: str = "key") -> Any:
    """A key or another text: str in Unicode, or bytes."""
    if not isinstance(given, TEXT):
        raise InvalidArgument(f"{name} must be str or bytes, not {type(given).__name__}")
    if isinstance(given, str):
        try:
            given.encode()
        except UnicodeEncodeError:
            raise InvalidArgument(f"{name} is a str that is not Unicode: give bytes") from None
        return given
    return bytes(given)


def text(given: Any, name: str) -> Any:
    """An option that is a text, or None."""
    return None if given is None else key(given, name)


def keys(given: Any) -> list[Any]:
    if isinstance(given, TEXT):
        raise InvalidArgument(f"keys must be a list of keys: for one key, give [{given!r:.80}]")
    return [key(one, f"keys[{place}]") for place, one in enumerate(iterable(given, "keys"))]


def pairs(given: Any) -> list[Any]:
    what = "pairs must be a dict, or a list of (key, value)"
    if isinstance(given, Mapping):
        listed: Iterable[Any] = given.items()
    elif isinstance(given, TEXT):
        raise InvalidArgument(f"{what}, not {type(given).__name__}")
    else:
        listed = iterable(given, "pairs")
    made = []
    for place, pair in enumerate(listed):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise InvalidArgument(f"{what}: pairs[{place}] is {pair!r:.80}")
        made.append([key(pair[0], f"the key of pairs[{place}]"), pair[1]])
    return made


def commands(given: Any) -> list[Any]:
    what = "commands must be a list of (method, params)"
    if isinstance(given, (Mapping, *TEXT)):
        raise InvalidArgument(f"{what}, not {type(given).__name__}")
    made = []
    for place, command in enumerate(iterable(given, "commands")):
        is_one = isinstance(command, (list, tuple)) and len(command) == 2
        if not is_one or not isinstance(command[0], (str, bytes)) or not isinstance(command[1], (list, tuple)):
            raise InvalidArgument(f"{what}: commands[{place}] is {command!r:.80}")
        made.append([command[0], list(command[1])])
    return made


def iterable(given: Any, name: str) -> Iterable[Any]:
    if not hasattr(type(given), "__iter__"):
        raise InvalidArgument(f"{name} must be a list, not {type(given).__name__}")
    return given  # type: ignore[no-any-return]


def seconds(given: Any, name: str) -> float:
    """A time from 0 to infinity."""
    try:
        is_time = not isinstance(given, (bool, *TEXT)) and float(given) >= 0
    except (TypeError, ValueError, OverflowError):
        is_time = False
    if not is_time:
        raise InvalidArgument(f"{name} must be a number of seconds from 0 on, not {given!r:.80}")
    return float(given)


def unsigned(given: Any, name: str) -> Any:
    """An integer from 0 to 2^64-1."""
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given < 2**64:
        raise InvalidArgument(f"{name} must be an integer from 0 to 2^64-1, not {given!r:.80}")
    return given


def milliseconds(given: Any, forever: float = math.inf) -> float:
    """How long an option lets the broker wait, in seconds."""
    return forever if given is None else unsigned(given, "a waiting time") / 1000
