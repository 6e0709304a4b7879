"""The surface of Anthropic's Messages: `POST /v1/messages`."""

from __future__ import annotations

from typing import ClassVar

import orjson

from proxy.http.errors import ApiError
from proxy.surfaces.completion import Completion
from proxy.surfaces.messages.read import MessageAssembler, read_message
from proxy.surfaces.messages.request import parse
from proxy.surfaces.messages.view import chat_view
from proxy.surfaces.messages.write import StudentMessage
from proxy.surfaces.surface import Request, Surface
from store.chat.student_wire import StudentAnswer
from store.jsontext import JsonObject
from store.records import Api

# https://platform.claude.com/docs/en/api/errors
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Messages(Surface):
    """The API of Anthropic's clients."""

    api: ClassVar[Api] = "messages"
    path = "/v1/messages"
    request_id = b"request-id"

    def read_request(self, raw: bytes, key_hash: str | None) -> Request:
        body = parse(raw)
        return Request(raw, body, chat_view(body))

    def read_answer(self, raw: bytes) -> Completion:
        return read_message(raw)

    def assembler(self) -> MessageAssembler:
        return MessageAssembler()

    def write_answer(
        self, answer: StudentAnswer, body: JsonObject, *, trace_id: str, student_id: str
    ) -> StudentMessage:
        return StudentMessage(answer, trace_id=trace_id, model=body["model"])

    def write_error(self, error: ApiError) -> bytes:
        """`{"type": "error", "error": {…}, "request_id": …}`."""
        other = "invalid_request_error" if error.status < 500 else "api_error"
        detail = {"type": _ERROR_TYPES.get(error.status, other), "message": error.message}
        return orjson.dumps({"type": "error", "error": detail, "request_id": error.request_id})
