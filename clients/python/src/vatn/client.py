"""The client: one DEALER connection, used by one thread at a time."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zmq

from . import wire
from .commands import Commands, Key
from .errors import ProtocolError, Timeout, VatnError

PROTOCOL = 1
DEFAULT_ENDPOINT = "tcp://127.0.0.1:7533"

# A pipeline goes out in messages of at most so much, with few of them unanswered, so that neither side's
# buffers fill up while nobody reads.
MESSAGE_REQUESTS = 1000
MESSAGE_BYTES = 1 << 20
MESSAGES_UNDER_WAY = 4

# How often, in seconds, the broker is asked for a sign of life. One that gives none for `timeout`, within these
# bounds, is taken for gone and connected anew: where the way to it broke without a word, libzmq would wait for ever.
HEARTBEAT = 2.0
PATIENCE_LEAST, PATIENCE_MOST = 5.0, 3600.0


class Client(Commands):
    """A connection to the command door of a broker. It connects, and says hello, at once.

    `timeout` (seconds) bounds every command; `wait` and `changes` get their own waiting time on top. After a
    `Timeout` it is not known whether a write was done. The connection comes back by itself.

    A Client is for one thread at a time: make one for each thread. It raises RuntimeError when two use it at once.
    """

    def __init__(
        self, endpoint: str = DEFAULT_ENDPOINT, *, timeout: float = 10.0, name: str | None = None,
        context: zmq.Context[Any] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.timeout = timeout
        self._ids = itertools.count(1)
        self._busy = threading.Lock()
        self._context = context or zmq.Context.instance()
        self._connect()
        try:
            self.server = self.hello(client=name or "python")
            if not isinstance(self.server, dict) or self.server.get("protocol") != PROTOCOL:
                raise ProtocolError(f"{endpoint} does not speak version {PROTOCOL} of the protocol: {self.server!r}")
        except VatnError:
            self.close()
            raise

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def scan(
        self, *, from_: Key | None = None, to: Key | None = None, prefix: Key | None = None,
        reverse: bool = False, keys_only: bool = False, page: int | None = None,
    ) -> Iterator[Any]:
        """Every item of a range, page by page; each page is its own moment."""
        after: Key | None = None
        while True:
            items, after = self.range(
                from_=from_, to=to, prefix=prefix, reverse=reverse, keys_only=keys_only, limit=page, after=after
            )
            yield from items
            if after is None:
                return

    def pipeline(self) -> Pipeline:
        """Many commands without waiting for each: `with client.pipeline() as p: reply = p.get("a")`."""
        return Pipeline(self)

    def atomic(self, *, durability: str | None = None) -> Atomic:
        """Several commands as one `batch`: `with client.atomic() as a: a.incr("n"); a.delete("m")`."""
        return Atomic(self, durability)

    @property
    def notify(self) -> Notifier:
        """The same commands without an answer, and without knowing their fate: `client.notify.set("a", 1)`."""
        return Notifier(self)

    # --- below: how it is sent

    def _connect(self) -> None:
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        # Nothing is sent before there is a connection: a command that timed out must not be done later.
        self._socket.immediate = True
        self._socket.heartbeat_ivl = int(HEARTBEAT * 1000)
        self._socket.heartbeat_timeout = int(min(max(self.timeout, PATIENCE_LEAST), PATIENCE_MOST) * 1000)
        self._socket.connect(self.endpoint)

    def _call(self, method: str, params: list[Any], result: Any = None) -> Any:
        reply = Reply(method, result)
        with self._alone():
            deadline = time.monotonic() + self.timeout + _waiting(method, params)
            id = next(self._ids)
            self._send([wire.request(id, method, params)], deadline)
            self._receive({id: reply}, {id}, deadline)
        return reply.result

    def _notify(self, method: str, params: list[Any]) -> None:
        with self._alone():
            self._send([wire.notification(method, params)], time.monotonic() + self.timeout)

    def _exchange(self, calls: list[tuple[str, list[Any], Reply]]) -> None:
        """Sends the calls in a few large messages, and reads while it writes.

        What the broker may wait with goes in a message of its own: answers of one message come together.
        """
        with self._alone():
            due: dict[int, Reply] = {}
            under_way: deque[tuple[set[int], float]] = deque()
            for message, waiting in self._messages(calls):
                self._send([frame for _, frame, _ in message], time.monotonic() + self.timeout)
                due.update((id, reply) for id, _, reply in message)
                under_way.append(({id for id, _, _ in message}, waiting))
                if len(under_way) >= MESSAGES_UNDER_WAY:
                    self._receive_first(under_way, due)
            while under_way:
                self._receive_first(under_way, due)

    def _messages(
        self, calls: list[tuple[str, list[Any], Reply]]
    ) -> Iterator[tuple[list[tuple[int, bytes, Reply]], float]]:
        """The requests message by message, as (id, frame, reply), and how long the broker may wait with each."""
        message: list[tuple[int, bytes, Reply]] = []
        size = 0
        for method, params, reply in calls:
            id = next(self._ids)
            frame = wire.request(id, method, params)
            waiting = _waiting(method, params)
            if message and (waiting or len(message) == MESSAGE_REQUESTS or size >= MESSAGE_BYTES):
                yield message, 0
                message, size = [], 0
            if waiting:
                yield [(id, frame, reply)], waiting
            else:
                message.append((id, frame, reply))
                size += len(frame)
        if message:
            yield message, 0

    def _receive_first(self, under_way: deque[tuple[set[int], float]], due: dict[int, Reply]) -> None:
        ids, waiting = under_way.popleft()
        self._receive(due, ids, time.monotonic() + self.timeout + waiting)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("this Client is in use by another thread: make one for each thread")
        try:
            yield
        finally:
            self._busy.release()

    def _send(self, frames: list[bytes], deadline: float) -> None:
        if not self._ready(zmq.POLLOUT, deadline):
            raise Timeout(f"no connection to {self.endpoint} within {self.timeout:g} s: is `vatn serve` running there?")
        try:
            self._socket.send_multipart(frames)
        except BaseException:
            # A signal between two frames: what is begun must not go out with the next command.
            self._socket.close()
            self._connect()
            raise

    def _receive(self, due: dict[int, Reply], wanted: set[int], deadline: float) -> None:
        """Receives until the replies that are wanted have come, and takes all others that are due."""
        while not wanted.isdisjoint(due):
            if not self._ready(zmq.POLLIN, deadline):
                method = next(reply.method for id, reply in due.items() if id in wanted)
                raise Timeout(f"no answer to `{method}` from {self.endpoint} within {self.timeout:g} s")
            for frame in self._socket.recv_multipart():
                id, error, result = wire.response(frame)
                # An id that is not due is the late answer to a command that timed out.
                reply = due.pop(id, None) if id is not None else None
                if reply is not None:
                    reply._settle(error, result)

    def _ready(self, event: int, deadline: float) -> bool:
        left = None if math.isinf(deadline) else max(0, math.ceil((deadline - time.monotonic()) * 1000))
        return bool(self._socket.poll(left, event))


def _waiting(method: str, params: list[Any]) -> float:
    """How many seconds the broker itself may wait before it answers."""
    if method not in ("wait", "changes"):
        return 0
    options = params[-1] if isinstance(params[-1], dict) else {}
    forever = math.inf if method == "wait" else 0
    return options.get("timeout_ms", options.get("wait_ms", forever)) / 1000


class Reply:
    """The answer to a command of a pipeline or an atomic block, there once the block has ended."""

    def __init__(self, method: str, make: Any) -> None:
        self.method = method
        self.error: VatnError | None = None
        self._make = make
        self._settled = False
        self._result: Any = None

    @property
    def result(self) -> Any:
        """What the command returned; raises what it was refused with."""
        if not self._settled:
            raise VatnError(f"`{self.method}` has no answer yet: leave the block first")
        if self.error is not None:
            raise self.error
        return self._result

    def _settle(self, error: VatnError | None, result: Any) -> None:
        self._settled = True
        self.error = error
        if error is None:
            self._result = self._make(result) if self._make else result


class Pipeline(Commands):
    """Collects commands and sends them when the block ends; each method returns a `Reply`.

    Every command is executed, also after one that is refused; the first refusal is raised once all answers
    are there. Nothing is sent when the block raises.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._calls: list[tuple[str, list[Any], Reply]] = []

    def _call(self, method: str, params: list[Any], result: Any = None) -> Reply:
        reply = Reply(method, result)
        self._calls.append((method, params, reply))
        return reply

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        calls, self._calls = self._calls, []
        if kind is not None:
            return
        self._client._exchange(calls)
        for _, _, reply in calls:
            if reply.error is not None:
                raise reply.error


class Atomic(Pipeline):
    """Collects commands and sends them as one `batch` when the block ends: all are done, or none."""

    def __init__(self, client: Client, durability: str | None) -> None:
        super().__init__(client)
        self._durability = durability

    def __exit__(self, kind: Any, *_: Any) -> None:
        calls, self._calls = self._calls, []
        if kind is not None:
            return
        results = self._client.batch([call[:2] for call in calls], durability=self._durability)
        for (_, _, reply), result in zip(calls, results):
            reply._settle(None, result)


class Notifier(Commands):
    """Sends commands as notifications: no answer, no error, None from every method."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def _call(self, method: str, params: list[Any], result: Any = None) -> None:
        self._client._notify(method, params)
