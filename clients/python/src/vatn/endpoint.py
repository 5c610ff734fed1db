"""Endpoints: how a socket is connected to one."""

from __future__ import annotations

import socket as system
from typing import Any

import zmq

from .errors import InvalidArgument


def check(endpoint: Any, context: Any) -> None:
    if not isinstance(endpoint, str):
        raise InvalidArgument(f"endpoint must be a str like tcp://127.0.0.1:7533, not {endpoint!r:.80}")
    if context is not None and not isinstance(context, zmq.Context):
        raise InvalidArgument(f"context must be a zmq.Context, not {type(context).__name__}")


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
    if ":" in host:
        return True
    try:
        families = {found[0] for found in system.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return families == {system.AF_INET6}
