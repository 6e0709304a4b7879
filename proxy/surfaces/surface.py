"""A surface: one of the APIs through which clients ask, and what it says in its own words.

    POST body ──parse──▶ body ──chat_view──▶ the chat completion that asks the same
                           │                    what tag, fingerprint, route, student, log look at
                           └─▶ the teacher gets the client's own bytes, and its answer is passed on
    teacher's answer ──read / assembler──▶ Completion, for the log
    student's answer ──student_answer──▶ the form that this API gives answers

A surface holds no state and does no I/O.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from proxy.http.errors import ApiError
from proxy.surfaces.assemble import Completion
from store.chat.student_wire import StudentAnswer
from store.records import Api

Body = dict[str, Any]


class Assembler(Protocol):
    """Puts a streamed answer together while its bytes go by. Never raises on what it is fed."""

    done: bool  # from the last byte of the stream's own end mark on

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes, cut anywhere."""

    def finish(self) -> Completion:
        """The completion as far as it came."""


class Served(Protocol):
    """A student's answer in a surface's form."""

    def whole(self) -> bytes:
        """The JSON object."""

    def events(self) -> bytes:
        """The stream of server-sent events with its end."""

    def completion(self) -> Completion:
        """The same answer for the trace."""


class Surface(Protocol):
    """One API."""

    @property
    def api(self) -> Api:
        """Its name in the log: `Trace.api`."""

    @property
    def operation_name(self) -> str:
        """`gen_ai.operation.name` of OpenTelemetry: chat, text_completion, embeddings."""

    @property
    def path(self) -> str:
        """Where clients find it, with /v1. Teachers have it at the same place."""

    @property
    def request_id(self) -> bytes:
        """The response header in which clients look for the request's id."""

    def parse(self, raw: bytes) -> Body:
        """The request. Raises ApiError 400 on what cannot be one.

        `model` is a string in it, absent only where something else in it names one; `stream` is a
        boolean or absent, `metadata` an object or absent.
        """

    def chat_view(self, body: Body) -> Body:
        """The chat completion that asks the same, with `model` and `messages`.

        What has no equal there stays in it under its own name, for which no student is certified.
        The request itself where it is one. Never changes `body`.
        """

    def read(self, raw: bytes) -> Completion:
        """What a plain answer of the teacher says; never raises."""

    def assembler(self) -> Assembler:
        """Reads a streamed answer of the teacher."""

    def error(self, error: ApiError) -> bytes:
        """The JSON body of a refusal."""


@runtime_checkable
class StudentSurface(Surface, Protocol):
    """One API through which a student may answer."""

    def student_answer(
        self, answer: StudentAnswer, body: Body, *, trace_id: str, student_id: str
    ) -> Served:
        """A student's answer to `body`, in the form that this API gives answers."""
