"""The feed: the messages of a change endpoint, and a count of the connections that they came over."""

from __future__ import annotations

import math
import time
from typing import Any

import zmq

from . import endpoint as endpoints
from .errors import Unusable

# After this many seconds without any message, not even a beat, the connection is closed and made anew: where the
# network fails silently, libzmq would wait for ever. (Its own heartbeats would cut a slow reader: they see no answer
# while its queue is full.) After each such silence the wait is twice as long, until a message comes: a large value may
# be on its way, before which no beat can come.
SILENCE = 5.0
PATIENCE_MAX = 64
# How long, in milliseconds, reading messages that have already arrived may take. A process that was busy or stopped for
# long finds the time of the next beat over.
LAST_LOOK_MS = 100


class Feed:
    """A SUB socket. libzmq reconnects it silently; the feed counts the connections.

    `before` is how many connections had been made when the last message that `next` gave was still to come: it came
    over that one, or over a later one up to `connections`.
    """

    def __init__(self, endpoint: str, topics: tuple[bytes, ...], context: zmq.Context[Any]) -> None:
        self.endpoint = endpoint
        self.before = 0
        self._connections = 0
        self._silent = 0.0
        # The factor by which the wait is longer.
        self._patience = 1
        try:
            self._socket = context.socket(zmq.SUB)
        except zmq.ZMQError as fault:
            raise Unusable(f"no socket for {endpoint}: {fault}") from fault
        self._socket.linger = 0
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        for topic in topics:
            self._socket.subscribe(topic)
        try:
            endpoints.connect(self._socket, endpoint)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the connection, if it is not closed."""
        if self._socket.closed:
            return
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close()

    def connections(self) -> int:
        """How many connections were made until now, including those that every message so far came over."""
        while self._monitor.events & zmq.POLLIN:
            self._monitor.recv_multipart()
            self._connections += 1
            self._silent = 0.0
        return self._connections

    def next(self, deadline: float) -> list[bytes] | None:
        """The next message, or None when there is none until `deadline`."""
        while not self._socket.events & zmq.POLLIN:
            connections = self.connections()
            if self._socket.events & zmq.POLLIN:
                break
            # Messages of the connections before the last of these have all been taken.
            self.before = connections
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._wait(left)
        self._silent = 0.0
        self._patience = 1
        return self._take()

    def _wait(self, left: float) -> None:
        begin = time.monotonic()
        longest = SILENCE * self._patience
        self._poller.poll(math.ceil(min(left, longest - self._silent) * 1000))
        self._silent += time.monotonic() - begin
        if self._silent >= longest and not self._socket.poll(LAST_LOOK_MS):
            self._silent = 0.0
            self._patience = min(self._patience * 2, PATIENCE_MAX)
            self._socket.disconnect(self.endpoint)
            self._socket.connect(self.endpoint)

    def _take(self) -> list[bytes]:
        try:
            return self._socket.recv_multipart()
        except BaseException:
            # A signal may come between two frames: the rest must not be taken for the next message. This message is
            # missed, and `prev` of the next one shows it.
            while self._socket.rcvmore:
                self._socket.recv()
            raise
