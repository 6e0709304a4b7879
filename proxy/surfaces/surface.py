"""A surface: one of the APIs through which clients ask.

    request's bytes ──read_request──▶ Request: as the teacher gets it, and as the chat completion
                                      that asks the same, which all else looks at
    teacher's answer ──read_answer / assembler──▶ Completion, for the log
    student's answer ──write_answer──▶ the form in which this API gives answers

Each surface is a folder: `request.py` checks a request, `view.py` makes a chat completion of it,
`read.py` reads a teacher's answer, `write.py` writes a student's, `surface.py` ties these together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import msgspec

from proxy.http.errors import ApiError
from proxy.surfaces.completion import Completion
from store.chat.student_wire import StudentAnswer
from store.jsontext import JsonObject
from store.records import Api, Content


class Request(msgspec.Struct):
    """A client's request, understood."""

    raw: bytes  # what the teacher gets, if nothing else has to change
    body: JsonObject  # the same, parsed
    chat: JsonObject  # the chat completion that asks the same; `body` itself where it is one


class Assembler(Protocol):
    """Puts a streamed answer together while its bytes go by."""

    done: bool  # from the last byte of the stream's own end mark on

    @property
    def pending(self) -> int:
        """Bytes of the event that has not ended."""

    @property
    def held(self) -> int:
        """Bytes of memory that it holds, about."""

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes, cut anywhere. Raises where it gives up reading: see EventReader."""

    def finish(self) -> Completion:
        """The completion as far as it came."""


class WrittenAnswer(Protocol):
    """A student's answer in a surface's form."""

    def whole(self) -> bytes:
        """The JSON object."""

    def events(self) -> bytes:
        """The stream of server-sent events with its end."""

    def completion(self) -> Completion:
        """The same answer for the trace."""


class Surface(ABC):
    """One API."""

    api: ClassVar[Api]  # its name in the log: `Trace.api`
    operation_name: ClassVar[str] = "chat"  # OpenTelemetry's `gen_ai.operation.name`
    path: ClassVar[str]  # where clients find it, with /v1; teachers have it at the same place
    request_id: ClassVar[bytes] = b"x-request-id"  # the header in which clients look for the id
    # Whether students may answer: then `write_answer` is there.
    for_students: ClassVar[bool] = True
    # Whether the default deployment answers for models that no entry of `model_list` names.
    any_model: ClassVar[bool] = False

    @abstractmethod
    def read_request(self, raw: bytes, key_hash: str | None) -> Request:
        """The request of a client with this key. Raises ApiError 400 on what cannot be one.

        In its body `model` is a string, absent only where something else in it names one; `stream`
        is a boolean or absent, `metadata` an object or absent. In its chat completion, what has no
        equal there stays under its own name, for which no student is certified.
        """

    @abstractmethod
    def read_answer(self, raw: bytes) -> Completion:
        """A plain answer of the teacher. Never raises."""

    @abstractmethod
    def assembler(self) -> Assembler:
        """Reads a streamed answer of the teacher."""

    def write_error(self, error: ApiError) -> bytes:
        """The JSON body of a refusal: OpenAI's `{"error": {…}}`."""
        return error.body()

    def write_answer(
        self, answer: StudentAnswer, body: JsonObject, *, trace_id: str, student_id: str
    ) -> WrittenAnswer:
        """A student's answer to `body` in this API's form."""
        raise NotImplementedError(f"no student answers through {self.path}")

    # ---- for APIs whose clients may come back to an answer ---------------------------------------

    def may_keep(self, body: JsonObject, content: Content) -> bool:
        """Whether a student's answer may be kept as long as its client can ask for it again."""
        return True

    def keep_answer(
        self,
        answer: WrittenAnswer,
        body: JsonObject,
        content: Content,
        *,
        trace_id: str,
        key_hash: str | None,
    ) -> bool:
        """Keeps a student's answer if its client can ask for it again; False if it could not."""
        return True
