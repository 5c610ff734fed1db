"""Several commands at once: pipelines, atomic blocks and notifications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from . import shapes
from .commands import Commands
from .errors import ProtocolError, Unreadable, VatnError

if TYPE_CHECKING:
    from .client import Client


class Call(NamedTuple):
    """A command ready to be sent."""

    id: int
    frame: bytes
    waiting: float
    reply: Reply


class Reply:
    """The answer to a command of a pipeline or an atomic block; available once the block has ended."""

    def __init__(self, method: str, make: Any, shape: shapes.Shape = shapes.value) -> None:
        self.method = method
        self.shape = shape
        self.error: VatnError | None = None
        self._make = make
        self._settled = False
        self._result: Any = None

    @property
    def result(self) -> Any:
        """The result of the command; raises its refusal."""
        if not self._settled:
            raise VatnError(f"`{self.method}` has no answer yet: leave the block first")
        if self.error is not None:
            raise self.error
        return self._result

    def _settle(self, error: VatnError | None, result: Any) -> None:
        self._settled = True
        self.error = result if error is None and isinstance(result, Unreadable) else error
        if self.error is not None:
            return
        try:
            self._result = self._make(result) if self._make else result
        except (TypeError, ValueError, LookupError) as fault:
            self.error = ProtocolError(f"an answer to `{self.method}` of another form: {result!r:.80}")
            self.error.__cause__ = fault

    def _give_up(self, error: VatnError) -> None:
        """Sets this error, unless the answer is there."""
        if not self._settled:
            self._settle(error, None)


class Pipeline(Commands):
    """Collects commands and sends them when the block ends; each method returns a `Reply`.

A value that cannot be sent is refused by the method itself, before anything is sent. Every command is executed, even
    after a refused one; the first refusal is raised once all answers are there. (A value that is `Unreadable` is raised
    by its own reply alone.) Nothing is sent when the block raises.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._calls: list[Call] = []

    def _call(self, method: str, params: list[Any], result: Any = None) -> Reply:
        call = self._client._pack(method, params, result)
        self._calls.append(call)
        return call.reply

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        calls, self._calls = self._calls, []
        if kind is not None:
            for call in calls:
                call.reply._give_up(VatnError(f"`{call.reply.method}` was not sent: the block raised"))
            return
        self._client._exchange(calls)
        for call in calls:
            if call.reply.error is not None and not isinstance(call.reply.error, Unreadable):
                raise call.reply.error


class Atomic(Commands):
    """Collects commands and sends them as one `batch` when the block ends: all are done, or none."""

    def __init__(self, client: Client, durability: str | None) -> None:
        self._client = client
        self._durability = durability
        self._calls: list[tuple[str, list[Any], Reply]] = []

    def _call(self, method: str, params: list[Any], result: Any = None) -> Reply:
        reply = Reply(method, result)
        self._calls.append((method, params, reply))
        return reply

    def __enter__(self) -> Atomic:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        calls, self._calls = self._calls, []
        try:
            if kind is not None:
                return
            results = self._client.batch([call[:2] for call in calls], durability=self._durability)
            for (_, _, reply), result in zip(calls, results):
                reply._settle(None, result)
        except VatnError as fault:
            for _, _, reply in calls:
                reply._give_up(fault)
            raise
        finally:
            for _, _, reply in calls:
                reply._give_up(VatnError(f"`{reply.method}` has no answer: the block ended before it"))


class Notifier(Commands):
    """Sends commands as notifications: no answer, no error, None from every method."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def _call(self, method: str, params: list[Any], result: Any = None) -> None:
        self._client._notify(method, params)
