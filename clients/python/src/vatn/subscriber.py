"""The subscriber: it knows whether it has received every change."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import zmq

from . import arguments, endpoint as endpoints, wire
from .arguments import Key
from .client import Client, check_process
from .commands import Change
from .errors import Missed, ProtocolError, Timeout, Unreadable, Unusable, VatnError
from .feed import Feed

DEFAULT_ENDPOINT = "tcp://127.0.0.1:7534"
BEAT = b"\xffbeat"
# How long the broker may take, in milliseconds, for changes that it has published already.
WAIT_MS = 1000


class Subscriber:
    """An iterator over the changes of keys that begin with one of `prefixes` (without any: of all keys).

    It is made when the subscription is in effect, which takes up to a second; with several prefixes, when the first
    beat has come, and `Timeout` is raised when none came within `patience` (one that lags gets none). From then on
    every change is yielded in order, or `Missed` is raised in its place (once for each stretch; go on with the next
    `next`). `last` is the seq up to which nothing is missing. `Timeout` is raised when not even a beat came for
    `patience` seconds.

    With a `client` of the same broker, what is missing is fetched with its `changes`, and `Missed` is raised only
    where that fails, with the reason as its cause (the history may be compacted), or where the store is another one.
    With `after`, the changes of writes later than that seq come first.

    A Subscriber is for one thread at a time, and its `client` with it. In a child of the process that made it (after a
    fork) it raises `Unusable`: make another one there.
    """

    def __init__(
        self, endpoint: str = DEFAULT_ENDPOINT, *prefixes: Key, patience: float = 5.0,
        client: Client | None = None, after: int | None = None, context: zmq.Context[Any] | None = None,
    ) -> None:
        endpoints.check(endpoint, context)
        self.endpoint = endpoint
        self.patience = arguments.seconds(patience, "patience")
        self._process = os.getpid()
        if after is not None:
            arguments.unsigned(after, "after")
        # The seq up to which nothing is missing, and the seq of the last change seen: of that write maybe not all
        # changes.
        self.last: int = -1 if after is None else after
        self._seen = self.last
        # The expected `prev` of the next message, if it comes over the same connection.
        self._chain: int | None = None
        # How many connections there had been, at least, when the last change arrived.
        self._seen_over = 0
        self._client = client
        # The history that is followed: another store has another one.
        self._store = client.hello()["store_id"] if client is not None else None
        self._prefixes = tuple(
            wire.key_bytes(arguments.key(prefix, "a prefix")) for prefix in prefixes or (b"",)
        )
        self._told = (self.last, 2**64)
        # The seq up to which changes are to be fetched, and the message that must wait until they are yielded.
        self._missing: int | None = None
        self._held: list[bytes] | None = None
        # With several prefixes: changes published up to this seq count as earlier ones.
        self._first_beat: list[bytes] | None = None
        self._ready: deque[Change | Missed] = deque()
        # The beat last: subscriptions take effect in order, so the first beat shows that all have.
        self._feed = Feed(endpoint, (*self._prefixes, BEAT), context or zmq.Context.instance())
        try:
            self._begin(time.monotonic() + patience)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the connection, if it is not closed. In a child of the process that made it, the parent's stays."""
        if self._process == os.getpid():
            self._feed.close()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __iter__(self) -> Iterator[Change]:
        return self

    def __next__(self) -> Change:
        while not self._ready:
            self._receive(time.monotonic() + self.patience)
        return self._take()

    def take(self, timeout: float) -> Change | None:
        """The next change, or None when there is none within `timeout` seconds."""
        until = time.monotonic() + arguments.seconds(timeout, "timeout")
        while not self._ready:
            patience = time.monotonic() + self.patience
            try:
                self._receive(min(until, patience))
            except Timeout:
                if until <= patience:
                    return None
                raise
        return self._take()

    def until(self, seq: int) -> Iterator[Change]:
        """The changes up to `seq`; ends when all of them have been seen."""
        return self._until(arguments.unsigned(seq, "seq"))

    def _until(self, seq: int) -> Iterator[Change]:
        while self.last < seq or self._ready:
            if self._ready:
                yield self._take()
            else:
                self._receive(time.monotonic() + self.patience)

    def _take(self) -> Change:
        check_process(self._process, "Subscriber")
        item = self._ready.popleft()
        if isinstance(item, Missed):
            raise item
        return item

    def _begin(self, deadline: float) -> None:
        """Returns when the subscription is in effect."""
        if len(self._prefixes) > 1:
            # The messages before the first beat may be only some of the changes, and are not kept: that beat is taken
            # for the first message.
            frames = self._next_message(deadline)
            while frames[0] != BEAT:
                if time.monotonic() >= deadline:
                    raise Timeout(f"no beat from {self.endpoint} in time: with several prefixes, the first is awaited")
                frames = self._next_message(deadline)
            self._held = self._first_beat = frames
        self._receive(deadline)

    def _receive(self, deadline: float) -> None:
        """Receives one message, or fetches one page, and checks seq and prev as the protocol says."""
        if self._missing is not None:
            check_process(self._process, "Subscriber")
            self._fetch(self._missing)
            return
        frames = self._held or self._next_message(deadline)
        self._held = None
        topic, (seq, op, index, count, prev, ttl_ms, level), value = _parts(frames)
        before = seq if frames is self._first_beat else prev
        # A new connection begins after all changes that were seen published before.
        breaks_chain = before < self._seen and prev != self._chain
        if self._seen == -1 or seq < self._seen or breaks_chain:
            # The first message; or the beginning of another history.
            if self._seen != -1:
                self._ready.append(Missed(0, before))
            self._start_after(before)
        self._chain = prev
        known = self._known(seq, op, before)
        missed_to = max(before, seq) if op == "lost" else before
        if missed_to > known:
            if self._client is not None:
                self._missing, self._held = missed_to, frames
                return
            self._ready.append(Missed(known, missed_to))
        if op not in ("beat", "lost"):
            try:
                decoded = wire.unpack(value) if value else None
            except Unreadable as unreadable:
                decoded = unreadable
            self._ready.append(Change(wire.key_text(topic), op, decoded, seq, index, count, ttl_ms, level))
            self._told = (seq, index)
            # It came over some connection: at least the first.
            self._seen_over = max(1, self._feed.before)
        if op != "beat":
            self._chain = seq
        self._seen = seq
        # More changes of the same write may follow, until the last of them, a later seq or a beat.
        is_whole = op in ("beat", "lost") or index + 1 == count
        self.last = seq if is_whole else max(self.last, seq - 1)

    def _start_after(self, seq: int) -> None:
        self.last = self._seen = seq
        self._told = (seq, 2**64)

    def _known(self, seq: int, op: str, prev: int) -> int:
        """The seq up to which all changes were seen, now that this message follows."""
        may_have_more = self.last < self._seen
        is_next_write = seq > self._seen or op in ("beat", "lost")
        if may_have_more and is_next_write:
            # Over one connection, the rest of the write would have come before this. A connection that ends takes the
            # rest with it, and no gap shows that if nothing was published until the next connection was made.
            is_cut = prev > self._seen or self._feed.connections() > self._seen_over
            return self.last if is_cut else self._seen
        return self._seen

    def _next_message(self, deadline: float) -> list[bytes]:
        check_process(self._process, "Subscriber")
        try:
            frames = self._feed.next(deadline)
        except zmq.ZMQError as fault:
            raise Unusable(f"the connection to {self.endpoint} is closed or failed: {fault}") from fault
        if frames is None:
            raise Timeout(f"nothing received from {self.endpoint} in time: is `vatn serve` running there?")
        return frames

    def _fetch(self, up_to: int) -> None:
        """Fetches one page of the missing changes; later ones are yielded as they were published."""
        assert self._client is not None
        # The last write seen may have had more changes: it is read again, and changes already yielded are skipped.
        prefix = os.path.commonprefix(self._prefixes)
        try:
            changes, next_seq = self._client.changes(self.last, prefix=prefix or None, wait_ms=WAIT_MS)
            # Requested after the page, to know which store the page is of.
            store = self._client.hello()["store_id"]
        except VatnError as error:
            missed = Missed(self.last, up_to)
            missed.__cause__ = error
            self._ready.append(missed)
            next_seq = up_to
        else:
            if store != self._store:
                self._change_to(store, up_to)
                return
            for change in changes:
                is_ours = wire.key_bytes(change.key).startswith(self._prefixes)
                if is_ours and self._told < (change.seq, change.index) and change.seq <= up_to:
                    self._ready.append(change)
                    self._told = (change.seq, change.index)
        self.last = min(next_seq, up_to)
        if next_seq >= up_to:
            self._seen, self._missing = up_to, None

    def _change_to(self, store: str, seq: int) -> None:
        """The store was replaced by one whose seqs have passed those seen: its history was missed up to `seq`."""
        self._ready.append(Missed(0, seq))
        self._start_after(seq)
        self._missing = None
        # The message at hand may still be of the old store; then another one follows, and is detected again.
        if self._feed.connections() <= max(1, self._feed.before):
            self._store = store


def _parts(frames: list[bytes]) -> tuple[bytes, list[Any], bytes]:
    """Key, header and value of a message."""
    try:
        topic, head, value = frames
        header = wire.unpack(head)[:7]
        seq, op, index, count, prev, _, _ = header
        if not isinstance(op, str) or not all(isinstance(number, int) for number in (seq, index, count, prev)):
            raise ValueError("a header of another form")
    except (TypeError, ValueError, Unreadable) as fault:
        raise ProtocolError(f"a message that is no change: {[frame[:64] for frame in frames]}") from fault
    return topic, header, value
