"""The surface of the Responses API: `POST /v1/responses`."""

from __future__ import annotations

from proxy.http.errors import ApiError
from proxy.surfaces.assemble import Completion
from proxy.surfaces.responses.events import ResponseAssembler
from proxy.surfaces.responses.read import read_response
from proxy.surfaces.responses.request import parse_responses_body
from proxy.surfaces.responses.view import chat_view
from proxy.surfaces.responses.write import StudentResponse
from proxy.surfaces.surface import Body
from store.chat.student_wire import StudentAnswer
from store.records import Api


class Responses:
    """Typed items in and out. What a request asks for is seen as a chat completion."""

    api: Api = "responses"
    operation_name = "chat"
    path = "/v1/responses"
    request_id = b"x-request-id"

    def parse(self, raw: bytes) -> Body:
        """The request. Raises ApiError 400. Without `model` only where `prompt` may name it."""
        return parse_responses_body(raw)

    def chat_view(self, body: Body) -> Body:
        """The chat completion that asks the same."""
        return chat_view(body)

    def read(self, raw: bytes) -> Completion:
        """What a `response` object says."""
        return read_response(raw)

    def assembler(self) -> ResponseAssembler:
        """Reads the typed events."""
        return ResponseAssembler()

    def student_answer(
        self, answer: StudentAnswer, body: Body, *, trace_id: str, student_id: str
    ) -> StudentResponse:
        """A `response`, or its events."""
        return StudentResponse(answer, body, trace_id=trace_id)

    def error(self, error: ApiError) -> bytes:
        """`{"error": {…}}`."""
        return error.body()
