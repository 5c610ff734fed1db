"""The commands, one method each; the class that inherits them sends them with `_call`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from . import arguments
from .arguments import Key


class Entry(NamedTuple):
    """`get` with `meta`. `value` may be an `Unreadable`."""

    value: Any
    seq: int
    ttl_ms: int | None
    level: str


class Page(NamedTuple):
    """`range`: the items, and the key to give as `after` for the next page, or None. A value may be an `Unreadable`."""

    items: list[Any]
    next: Key | None


class Deleted(NamedTuple):
    """`delete_range`: how many keys it deleted, and the key to give as `after` to continue, or None."""

    count: int
    next: Key | None


class Change(NamedTuple):
    """One change to one key. `value` is None where the change has none, and an `Unreadable` where it cannot be read."""

    key: Key
    op: str
    value: Any
    seq: int
    index: int
    count: int
    ttl_ms: int | None
    level: str


class History(NamedTuple):
    """`changes`: the changes, and the seq up to which they are complete, to continue after."""

    changes: list[Change]
    next: int


def _as_entry(result: Any) -> Any:
    return None if result is None else Entry(*result[:4])


def _as_page(result: Any) -> Page:
    return Page([tuple(item) if isinstance(item, list) else item for item in result[0]], result[1])


def _as_deleted(result: Any) -> Deleted:
    return Deleted(result[0], result[1])


def _as_history(result: Any) -> History:
    changes = []
    for key, (seq, op, index, count, _prev, ttl_ms, level, *_), value in result[0]:
        changes.append(Change(key, op, value, seq, index, count, ttl_ms, level))
    return History(changes, result[1])


class Commands:
    """Every command of the protocol. Options that are None are not sent.

    Options of several commands: `durability` is the level at which a write is answered ("memory", "queued",
    "stored", "synced"); `if_` is its condition ("absent", "present", or a seq); `ttl_ms` its time to live
    (or `expires_at_ms` its end, in milliseconds since 1970);
    `key_prefix` stands before the key. `if_` and `from_` end in an underscore because Python needs the words.
    """

    def _call(self, method: str, params: list[Any], result: Any = None) -> Any:
        """Sends a command; `result` converts the answer to the method's return value."""
        raise NotImplementedError

    def hello(self, *, client: str | None = None) -> Any:
        """The broker's identity and properties: server, version, protocol, store_id, seq, limits, features."""
        return self._call("hello", _with([], client=client))

    def ping(self, payload: Any = None) -> Any:
        """The payload, back from the broker."""
        return self._call("ping", [payload])

    def get(self, key: Key, *, meta: bool = False, key_prefix: Key | None = None) -> Any:
        """The value, or None; with `meta` an `Entry`, or None."""
        params = _with([arguments.key(key)], meta=meta or None, key_prefix=key_prefix)
        return self._call("get", params, _as_entry if meta else None)

    def get_multi(self, keys: Iterable[Key]) -> Any:
        """A dict of the keys that were found."""
        return self._call("get_multi", [arguments.keys(keys)], dict)

    def set(
        self, key: Key, value: Any, *, if_: str | int | None = None, ttl_ms: int | None = None,
        expires_at_ms: int | None = None, return_value: bool = False, durability: str | None = None,
        key_prefix: Key | None = None,
    ) -> Any:
        """Writes one key; the write's seq. With `return_value` the old value, or None."""
        options = {"if": if_, "ttl_ms": ttl_ms, "expires_at_ms": expires_at_ms, "return_value": return_value or None}
        return self._call("set", _with([arguments.key(key), value], **options, durability=durability, key_prefix=key_prefix))

    def set_multi(
        self, pairs: Mapping[Key, Any] | Iterable[tuple[Key, Any]], *, ttl_ms: int | None = None,
        expires_at_ms: int | None = None, durability: str | None = None, key_prefix: Key | None = None,
    ) -> Any:
        """Writes several keys, all or none; the one seq."""
        options = {"ttl_ms": ttl_ms, "expires_at_ms": expires_at_ms, "durability": durability}
        params = _with([arguments.pairs(pairs)], **options, key_prefix=key_prefix)
        return self._call("set_multi", params)

    def delete(
        self, key: Key, *, return_value: bool = False, if_: str | int | None = None,
        durability: str | None = None, key_prefix: Key | None = None,
    ) -> Any:
        """Whether the key existed; with `return_value` the old value, or None."""
        options = {"return_value": return_value or None, "if": if_, "durability": durability, "key_prefix": key_prefix}
        return self._call("delete", _with([arguments.key(key)], **options))

    def delete_multi(
        self, keys: Iterable[Key], *, durability: str | None = None, key_prefix: Key | None = None
    ) -> Any:
        """Deletes several keys, all or none; how many existed."""
        params = _with([arguments.keys(keys)], durability=durability, key_prefix=key_prefix)
        return self._call("delete_multi", params)

    def delete_range(
        self, *, from_: Key | None = None, to: Key | None = None, prefix: Key | None = None, after: Key | None = None,
        limit: int | None = None, durability: str | None = None,
    ) -> Any:
        """Deletes a page of the keys of a range, all or none: a `Deleted`. Repeat with its `next` as `after`.

        One of `from_`, `to` and `prefix` must be given; the empty prefix stands for all keys.
        """
        options = {"from": from_, "to": to, "prefix": prefix, "after": after, "limit": limit}
        return self._call("delete_range", _with([], **options, durability=durability), _as_deleted)

    def incr(
        self, key: Key, *, delta: int | None = None, initial: int | None = None, ttl_ms: int | None = None,
        expires_at_ms: int | None = None, durability: str | None = None, key_prefix: Key | None = None,
    ) -> Any:
        """Adds to a number; the new one. A missing key becomes `initial`, or is `NotFound` without it."""
        options = {"delta": delta, "initial": initial, "ttl_ms": ttl_ms, "expires_at_ms": expires_at_ms}
        return self._call("incr", _with([arguments.key(key)], **options, durability=durability, key_prefix=key_prefix))

    def decr(
        self, key: Key, *, delta: int | None = None, initial: int | None = None, ttl_ms: int | None = None,
        expires_at_ms: int | None = None, durability: str | None = None, key_prefix: Key | None = None,
    ) -> Any:
        """Subtracts from a number; the new one."""
        options = {"delta": delta, "initial": initial, "ttl_ms": ttl_ms, "expires_at_ms": expires_at_ms}
        return self._call("decr", _with([arguments.key(key)], **options, durability=durability, key_prefix=key_prefix))

    def append(
        self, key: Key, data: str | bytes, *, if_: str | int | None = None, ttl_ms: int | None = None,
        expires_at_ms: int | None = None, durability: str | None = None, key_prefix: Key | None = None,
    ) -> Any:
        """Appends text or bytes to a value, or sets a missing key to them; the length of the new value."""
        options = {"if": if_, "ttl_ms": ttl_ms, "expires_at_ms": expires_at_ms}
        return self._call("append", _with([arguments.key(key), data], **options, durability=durability, key_prefix=key_prefix))

    def touch(
        self, key: Key, ttl_ms: int | None, *, expires_at_ms: int | None = None, durability: str | None = None,
        key_prefix: Key | None = None,
    ) -> Any:
        """Sets a key's time to live, or removes it; whether the key exists."""
        options = {"expires_at_ms": expires_at_ms, "durability": durability, "key_prefix": key_prefix}
        params = _with([arguments.key(key), ttl_ms], **options)
        return self._call("touch", params)

    def range(
        self, *, from_: Key | None = None, after: Key | None = None, to: Key | None = None,
        prefix: Key | None = None, limit: int | None = None, reverse: bool = False, keys_only: bool = False,
        meta: bool = False,
    ) -> Any:
        """One `Page` of keys in bytewise order: from `from_`, up to but without `to`."""
        options = {"from": from_, "after": after, "to": to, "prefix": prefix, "limit": limit}
        options.update(reverse=reverse or None, keys_only=keys_only or None, meta=meta or None)
        return self._call("range", _with([], **options), _as_page)

    def count(self, *, prefix: Key | None = None) -> Any:
        """How many keys there are, or begin with `prefix`."""
        return self._call("count", _with([], prefix=prefix))

    def batch(self, commands: Iterable[tuple[str, list[Any]]], *, durability: str | None = None) -> Any:
        """Several `(method, params)` as one write, all or none; their results. See also `Client.atomic`."""
        return self._call("batch", _with([arguments.commands(commands)], durability=durability))

    def flush(self) -> Any:
        """Waits until all earlier writes are in the tables and fsynced; LeakDB's status line."""
        return self._call("flush", [])

    def compact(self) -> Any:
        """Requests a compaction of the tables; it has ended when `disk.compactions` in `stats` reaches the result."""
        return self._call("compact", [])

    def wait(self, seq: int, level: str, *, timeout_ms: int | None = None) -> Any:
        """Waits until `seq` has reached `level`; False when the time ran out."""
        arguments.milliseconds(timeout_ms)
        return self._call("wait", _with([arguments.unsigned(seq, "seq"), level], timeout_ms=timeout_ms))

    def changes(
        self, after_seq: int, *, prefix: Key | None = None, limit: int | None = None, wait_ms: int | None = None
    ) -> Any:
        """The `History` after a seq, as far as it fits an answer; `wait_ms` is how long to wait for a change."""
        arguments.milliseconds(wait_ms)
        options = {"prefix": prefix, "limit": limit, "wait_ms": wait_ms}
        return self._call("changes", _with([arguments.unsigned(after_seq, "after_seq")], **options), _as_history)

    def stats(self) -> Any:
        """A dict of the broker's metrics."""
        return self._call("stats", [])


TEXTS = ("key_prefix", "prefix", "from", "to", "after", "durability", "client")


def _with(params: list[Any], **options: Any) -> list[Any]:
    given = {name: value for name, value in options.items() if value is not None}
    for name in TEXTS:
        if name in given:
            given[name] = arguments.key(given[name], name)
    return [*params, given] if given else params
