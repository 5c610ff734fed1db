"""The errors: one class for each error code of the protocol, and those that a client finds by itself."""

from __future__ import annotations

from typing import Any


class VatnError(Exception):
    """Every error that this package raises."""

    def __reduce__(self) -> Any:
        # Unchanged, even where `__init__` takes other arguments than the message.
        return _made_again, (type(self), self.args), self.__dict__


def _made_again(kind: type[VatnError], args: tuple[Any, ...]) -> VatnError:
    return kind.__new__(kind, *args)


class Timeout(VatnError, TimeoutError):
    """No answer in time. It is not known whether a write was done."""


class ProtocolError(VatnError):
    """The peer that answered does not speak version 1 of the protocol."""


class Unusable(VatnError, RuntimeError):
    """The client or subscriber is closed, in use by another thread, or was made in another process (before a fork)."""


class InvalidArgument(VatnError, TypeError, ValueError):
    """An argument of the wrong kind; nothing was sent."""


class Unwritable(InvalidArgument):
    """A value that would not come back equal; nothing was sent. `path` names the part, `reason` says why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} cannot be stored: {reason}")
        self.path = path
        self.reason = reason


class Unreadable(VatnError):
    """A value of another client that Python has no equal for. `bytes` has its MessagePack, `reason` says why.

    It is raised where it is the whole answer. Inside a larger answer (a page, a batch, a change, an `Entry`) it stands
    in the place of the value.
    """

    def __init__(self, value: bytes, reason: str) -> None:
        super().__init__(f"a value that cannot be read here: {reason}")
        self.bytes = value
        self.reason = reason


class Missed(VatnError):
    """Changes with a seq above `after`, up to `up_to`, may not have reached this subscriber."""

    def __init__(self, after: int, up_to: int) -> None:
        super().__init__(f"changes after seq {after} and up to {up_to} may be missing")
        self.after = after
        self.up_to = up_to


class CommandError(VatnError):
    """The broker refused a command. An error code that this version does not know is raised as this class."""

    code = ""

    def __init__(self, code: str, message: str, details: dict[str, Any]) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details = details

    @property
    def index(self) -> int | None:
        """In a batch, the place of the command that failed."""
        return self.details.get("index")


class BadRequest(CommandError):
    """The request was not valid; from this client that is a value nested deeper than 64 levels, or a fault."""

    code = "BAD_REQUEST"


class UnknownMethod(CommandError):
    """The broker is older than the command."""

    code = "UNKNOWN_METHOD"


class BadArgument(CommandError):
    """`details["argument"]` names the argument or option."""

    code = "BAD_ARGUMENT"


class BadKey(CommandError):
    """A key over 32,768 bytes, or one that begins with 0xFF."""

    code = "BAD_KEY"


class TooLarge(CommandError):
    """`details` name the limit and its value."""

    code = "TOO_LARGE"


class Conflict(CommandError):
    """A condition did not hold; nothing changed."""

    code = "CONFLICT"

    @property
    def seq(self) -> int | None:
        """The seq that the key has, None when it is absent."""
        return self.details.get("seq")


class NotFound(CommandError):
    """The key does not exist, and the command needs it."""

    code = "NOT_FOUND"


class NotANumber(CommandError):
    """The value is not an integer."""

    code = "NOT_A_NUMBER"


class WrongType(CommandError):
    """The value is neither text nor bytes, which `append` needs."""

    code = "WRONG_TYPE"


class Overflow(CommandError):
    """The result lies outside -2^63 to 2^64-1."""

    code = "OVERFLOW"


class WriteQueueFull(CommandError):
    """The write queue had no room in time; nothing changed."""

    code = "WRITE_QUEUE_FULL"


class Storage(CommandError):
    """The broker's disk failed; it refuses writes until a restart."""

    code = "STORAGE"


class Stopping(CommandError):
    """The broker is stopping; the command was not executed."""

    code = "STOPPING"


class Compacted(CommandError):
    """The requested history is no longer held."""

    code = "COMPACTED"

    @property
    def first(self) -> int | None:
        """The first seq that is still held."""
        return self.details.get("first")


class OtherHistory(CommandError):
    """The store has not reached that seq: the requested position is of another history."""

    code = "OTHER_HISTORY"

    @property
    def seq(self) -> int | None:
        """The last seq of the store."""
        return self.details.get("seq")


BY_CODE = {kind.code: kind for kind in CommandError.__subclasses__()}


def from_wire(error: list[Any]) -> CommandError:
    """The exception for `[CODE, message, details]`."""
    if len(error) < 3 or not isinstance(error[0], str) or not isinstance(error[2], dict):
        raise ProtocolError(f"an error of another form: {error!r}")
    code, message, details = error[:3]
    return BY_CODE.get(code, CommandError)(code, message, details)
