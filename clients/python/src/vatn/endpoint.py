"""Endpoints: connects a socket to one."""

from __future__ import annotations

import re
import socket as system
import threading
from typing import Any

import zmq

from .errors import InvalidArgument

# How long, in seconds, the addresses of a name are waited for.
LOOKUP = 2.0


def check(endpoint: Any, context: Any) -> None:
    if not isinstance(endpoint, str):
        raise InvalidArgument(f"endpoint must be a str like tcp://127.0.0.1:7533, not {endpoint!r:.80}")
    if context is not None and not isinstance(context, zmq.Context):
        raise InvalidArgument(f"context must be a zmq.Context, not {type(context).__name__}")
    if any(kind.__module__ == "zmq.asyncio" for kind in type(context).__mro__):
        raise InvalidArgument("context must be a plain zmq.Context: this client blocks, and is not for asyncio")


def connect(socket: zmq.Socket[Any], endpoint: str) -> None:
    """Connects, over IPv6 where the address is one, or the name has no other."""
    socket.ipv6 = needs_ipv6(endpoint)
    try:
        socket.connect(endpoint)
    except (zmq.ZMQError, TypeError, ValueError) as fault:
        raise InvalidArgument(f"{endpoint!r} is no endpoint: {fault}; give one like tcp://127.0.0.1:7533") from fault


def needs_ipv6(endpoint: str) -> bool:
    """libzmq resolves a name to one address: with IPv6 on, `localhost` would be ::1 alone."""
    scheme, _, address = endpoint.partition("://")
    host = address.rpartition(";")[2].rpartition(":")[0]
    if scheme != "tcp" or not host:
        return False
    if ":" in host or re.fullmatch(r"[\d.*]+", host):
        return ":" in host
    return _families(host) == {system.AF_INET6}


def _families(host: str) -> set[int]:
    """The address families of a name; none where they are not known in time."""
    found: set[int] = set()

    def look() -> None:
        try:
            found.update(entry[0] for entry in system.getaddrinfo(host, None))
        except (OSError, UnicodeError):
            pass

    # In its own thread, since a resolver that does not answer takes longer than a client may.
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(LOOKUP)
    return set(found)
