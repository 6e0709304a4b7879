"""The surface of chat completions: `POST /v1/chat/completions`."""

from __future__ import annotations

from proxy.http.body import parse_chat_body
from proxy.http.errors import ApiError
from proxy.surfaces.assemble import Completion, StreamAssembler, read_completion
from proxy.surfaces.chat.write import StudentCompletion
from proxy.surfaces.surface import Body
from store.chat.student_wire import StudentAnswer
from store.records import Api


class ChatCompletions:
    """What students are trained on and certified for, in its own words."""

    api: Api = "chat_completions"
    operation_name = "chat"
    path = "/v1/chat/completions"
    request_id = b"x-request-id"

    def parse(self, raw: bytes) -> Body:
        """The request. Raises ApiError 400."""
        return parse_chat_body(raw)

    def chat_view(self, body: Body) -> Body:
        """The request itself."""
        return body

    def read(self, raw: bytes) -> Completion:
        """What a `chat.completion` object says."""
        return read_completion(raw)

    def assembler(self) -> StreamAssembler:
        """Reads `chat.completion.chunk` objects."""
        return StreamAssembler()

    def student_answer(
        self, answer: StudentAnswer, body: Body, *, trace_id: str, student_id: str
    ) -> StudentCompletion:
        """A `chat.completion`, or its chunks."""
        options = body.get("stream_options") or {}
        return StudentCompletion(
            answer,
            trace_id=trace_id,
            student_id=student_id,
            model=body["model"],
            include_usage=bool(options.get("include_usage")),
        )

    def error(self, error: ApiError) -> bytes:
        """`{"error": {…}}`."""
        return error.body()
