"""Client of vatn, a key-value store and change feed over ZeroMQ.

    from vatn import Client

    with Client("tcp://127.0.0.1:7533") as client:
        client.set("boat", {"oars": 2})
        client.get("boat")

`Client` sends commands, `Subscriber` hears of changes; the protocol is proto/PROTOCOL.md in vatn's repository.
"""

from .client import Client
from .commands import Change, Deleted, Entry, History, Page
from .errors import (
    BadArgument,
    BadKey,
    BadRequest,
    CommandError,
    Compacted,
    Conflict,
    InvalidArgument,
    Missed,
    NotANumber,
    NotFound,
    OtherHistory,
    Overflow,
    ProtocolError,
    WriteQueueFull,
    Stopping,
    Storage,
    Timeout,
    TooLarge,
    UnknownMethod,
    Unreadable,
    Unusable,
    Unwritable,
    VatnError,
    WrongType,
)
from .pipeline import Atomic, Notifier, Pipeline, Reply
from .subscriber import Subscriber

__version__ = "0.1.0"

__all__ = [
    "Atomic", "BadArgument", "BadKey", "BadRequest", "Change", "Client", "CommandError", "Compacted", "Conflict",
    "Deleted", "Entry", "History", "InvalidArgument", "Missed", "NotANumber", "NotFound", "Notifier",
    "OtherHistory", "Overflow", "Page", "Pipeline", "ProtocolError", "WriteQueueFull", "Reply", "Stopping", "Storage",
    "Subscriber", "Timeout", "TooLarge", "UnknownMethod", "Unreadable", "Unusable", "Unwritable", "VatnError",
    "WrongType",
]
