"""The client: one DEALER connection, used by one thread at a time."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zmq

from . import arguments, endpoint as endpoints, shapes, wire
from .arguments import Key
from .commands import Commands
from .errors import ProtocolError, Timeout, TooLarge, Unusable, VatnError
from .pipeline import Atomic, Call, Notifier, Pipeline, Reply

PROTOCOL = 1
DEFAULT_ENDPOINT = "tcp://127.0.0.1:7533"

# A pipeline goes out in messages of at most this size, with few of them unanswered, so that neither side's buffers fill
# up while the other does not read.
MESSAGE_REQUESTS = 1000
MESSAGE_BYTES = 1 << 20
MESSAGES_UNDER_WAY = 4
# The longest wait that poll() takes.
POLL_MS_MAX = 2**31 - 1

# How often, in seconds, the broker gets a `ping`. A broker that answers none for `timeout`, within these bounds, is
# taken for gone and connected anew: where the network fails silently, libzmq would wait for ever.
HEARTBEAT = 2.0
PATIENCE_LEAST, PATIENCE_MOST = 5.0, 3600.0


class Client(Commands):
    """A connection to the command endpoint of a broker. It connects, and says hello, at once.

    `timeout` (seconds) bounds every command; `wait` and `changes` get their own waiting time on top. After a
    `Timeout` it is not known whether a write was done. The connection comes back by itself.

    A Client is for one thread at a time: make one for each thread. It raises `Unusable` when two use it at once, when
    it is closed, and in a child of the process that made it (after a fork): make another one there.
    """

    def __init__(
        self, endpoint: str = DEFAULT_ENDPOINT, *, timeout: float = 10.0, name: str | None = None,
        context: zmq.Context[Any] | None = None,
    ) -> None:
        endpoints.check(endpoint, context)
        self.endpoint = endpoint
        self.timeout = timeout
        self.server: dict[str, Any] = {}
        self._name = name or "python"
        self._ids = itertools.count(1)
        self._busy = threading.Lock()
        self._process = os.getpid()
        self._is_closed = False
        # Whether the broker may have been replaced by one with other limits.
        self._is_unsure = False
        self._context = context or zmq.Context.instance()
        try:
            self._connect()
            self._greet()
        except BaseException:
            self.close()
            raise

    @property
    def timeout(self) -> float:
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: float) -> None:
        self._timeout = arguments.seconds(timeout, "timeout")

    def close(self) -> None:
        """Closes the connection. In a child of the process that made it, the parent's stays open."""
        self._is_closed = True
        socket = getattr(self, "_socket", None)
        if socket is not None and self._process == os.getpid():
            socket.close()

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
        """The same commands without an answer, and without knowing their result: `client.notify.set("a", 1)`."""
        return Notifier(self)

    # --- below: how commands are sent

    def _connect(self) -> None:
        try:
            self._socket = self._context.socket(zmq.DEALER)
        except zmq.ZMQError as fault:
            raise Unusable(f"no socket for {self.endpoint}: {fault}") from fault
        self._socket.linger = 0
        # Nothing is sent without a connection: a command that timed out must not be executed later.
        self._socket.immediate = True
        self._socket.heartbeat_ivl = int(HEARTBEAT * 1000)
        self._socket.heartbeat_timeout = int(min(max(self.timeout, PATIENCE_LEAST), PATIENCE_MOST) * 1000)
        endpoints.connect(self._socket, self.endpoint)

    def _greet(self) -> None:
        self._is_unsure = False
        server = self.hello(client=self._name)
        if not isinstance(server, dict) or server.get("protocol") != PROTOCOL:
            raise ProtocolError(f"{self.endpoint} does not speak version {PROTOCOL} of the protocol: {server!r}")
        self.server = server

    def _limit(self, name: str) -> float:
        limits = self.server.get("limits")
        limit = limits.get(name) if isinstance(limits, dict) else None
        return limit if isinstance(limit, int) and limit > 0 else math.inf

    def _check_size(self, frame: bytes) -> None:
        """A message over the broker's limit would end the connection, and its answer would never come."""
        is_large = len(frame) > self._limit("message_bytes")
        if is_large or (self._is_unsure and len(frame) > MESSAGE_BYTES):
            self._greet()
        limit = self._limit("message_bytes")
        if len(frame) > limit:
            what = f"the request has {len(frame)} bytes, and the broker takes {limit} (--max-message-bytes)"
            raise TooLarge(TooLarge.code, what, {"limit": "message_bytes", "max": limit})

    def _call(self, method: str, params: list[Any], result: Any = None) -> Any:
        call = self._pack(method, params, result)
        with self._alone():
            deadline = time.monotonic() + self.timeout + call.waiting
            self._send([call.frame], deadline)
            self._receive({call.id: call.reply}, {call.id}, deadline)
        return call.reply.result

    def _pack(self, method: str, params: list[Any], result: Any) -> Call:
        self._check_usable()
        id = next(self._ids)
        frame = wire.request(id, method, params)
        self._check_size(frame)
        return Call(id, frame, _waiting(method, params), Reply(method, result, shapes.of(method, params)))

    def _notify(self, method: str, params: list[Any]) -> None:
        self._check_usable()
        frame = wire.notification(method, params)
        self._check_size(frame)
        with self._alone():
            self._send([frame], time.monotonic() + self.timeout)

    def _exchange(self, calls: list[Call]) -> None:
        """Sends the calls in a few large messages, and reads while it writes.

        A command that the broker may defer goes in a message of its own: answers of one message come together. After a
        failure midway, replies that had arrived are set, and the others have the error.
        """
        due: dict[int, Reply] = {}
        sent: set[int] = set()
        try:
            with self._alone():
                under_way: deque[tuple[set[int], float]] = deque()
                for message, waiting in self._messages(calls):
                    sent.update(call.id for call in message)
                    self._send([call.frame for call in message], time.monotonic() + self.timeout)
                    due.update((call.id, call.reply) for call in message)
                    under_way.append(({call.id for call in message}, waiting))
                    if len(under_way) >= MESSAGES_UNDER_WAY:
                        self._receive_first(under_way, due)
                while under_way:
                    self._receive_first(under_way, due)
        except BaseException as fault:
            for call in calls:
                if call.id in sent and isinstance(fault, VatnError):
                    call.reply._give_up(fault)
                what = "has no answer" if call.id in sent else "was not sent"
                call.reply._give_up(VatnError(f"`{call.reply.method}` {what}: {fault!r}"))
            raise

    def _messages(self, calls: list[Call]) -> Iterator[tuple[list[Call], float]]:
        """The requests of each message, and how long the broker may wait before it answers."""
        most = min(MESSAGE_REQUESTS, self._limit("frames"))
        size_max = min(MESSAGE_BYTES, self._limit("message_bytes"))
        message: list[Call] = []
        size = 0
        for call in calls:
            if message and (call.waiting or len(message) == most or size + len(call.frame) > size_max):
                yield message, 0
                message, size = [], 0
            if call.waiting:
                yield [call], call.waiting
            else:
                message.append(call)
                size += len(call.frame)
        if message:
            yield message, 0

    def _receive_first(self, under_way: deque[tuple[set[int], float]], due: dict[int, Reply]) -> None:
        ids, waiting = under_way.popleft()
        self._receive(due, ids, time.monotonic() + self.timeout + waiting)

    def _check_usable(self) -> None:
        check_process(self._process, "Client")
        if self._is_closed:
            raise Unusable(f"the connection to {self.endpoint} was closed")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._check_usable()
        if not self._busy.acquire(blocking=False):
            raise Unusable("this Client is in use by another thread: make one for each thread")
        try:
            yield
        except Timeout:
            self._is_unsure = True
            raise
        except zmq.ZMQError as fault:
            raise Unusable(f"the connection to {self.endpoint} failed: {fault}") from fault
        finally:
            self._busy.release()

    def _send(self, frames: list[bytes], deadline: float) -> None:
        if not self._ready(zmq.POLLOUT, deadline):
            raise Timeout(f"no connection to {self.endpoint} within {self.timeout:g} s: is `vatn serve` running there?")
        try:
            self._socket.send_multipart(frames)
        except BaseException:
            # A signal may come between two frames: a message that is begun must not go out with the next command.
            self._socket.close()
            self._connect()
            raise

    def _receive(self, due: dict[int, Reply], wanted: set[int], deadline: float) -> None:
        """Receives until the wanted replies have arrived, and takes all other replies that are due."""

        def shape_of(id: int | None) -> shapes.Shape:
            return due[id].shape if id in due else shapes.value

        while not wanted.isdisjoint(due):
            if not self._ready(zmq.POLLIN, deadline):
                method = next(reply.method for id, reply in due.items() if id in wanted)
                raise Timeout(f"no answer to `{method}` from {self.endpoint} within {self.timeout:g} s")
            for frame in self._socket.recv_multipart():
                id, error, result = wire.response(frame, shape_of)
                # An id that is not due is the late answer to a command that timed out.
                reply = due.pop(id, None) if id is not None else None
                if reply is not None:
                    reply._settle(error, result)

    def _ready(self, event: int, deadline: float) -> bool:
        while True:
            left = min(POLL_MS_MAX / 1000, max(0.0, deadline - time.monotonic()))
            if self._socket.poll(math.ceil(left * 1000), event):
                return True
            if time.monotonic() >= deadline:
                return False


def check_process(process: int, what: str) -> None:
    """Raises Unusable in a process other than the given one."""
    if process != os.getpid():
        raise Unusable(f"this {what} was made in process {process}, before a fork: make another one in this process")


def _waiting(method: str, params: list[Any]) -> float:
    """How many seconds the broker itself may wait before it answers."""
    if method not in ("wait", "changes"):
        return 0
    options = params[-1] if isinstance(params[-1], dict) else {}
    given = options.get("timeout_ms", options.get("wait_ms"))
    return arguments.milliseconds(given, math.inf if method == "wait" else 0)
