"""Notices that a client hangs up while nothing is being sent to it."""

from __future__ import annotations

from asyncio import Task
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from proxy.http.asgi import Scope


class ClientWatch:
    """Cancels the task that answers a client when the client hangs up.

    A context around the work. In a handler of CancelledError, `gone` says whether this is the
    cause. `scope["on_disconnect"]` and `scope["task"]` are the server's (see proxy.http.protocol).
    """

    __slots__ = ("_answering", "_register", "gone")

    def __init__(self, scope: Scope) -> None:
        self._register: Callable[[Callable[[], None] | None], None] = scope["on_disconnect"]
        self._answering: Task[Any] = scope["task"]
        self.gone = False

    def __enter__(self) -> Self:
        self._register(self._hung_up)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._register(None)

    def _hung_up(self) -> None:
        self.gone = True
        self._answering.cancel()
