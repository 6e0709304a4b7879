"""The surface of Anthropic's Messages: `POST /v1/messages`."""

from __future__ import annotations

import orjson

from proxy.http.body import (
    Types,
    check_messages,
    check_model,
    check_types,
    parse_object,
    wrong_type,
)
from proxy.http.errors import ApiError
from proxy.surfaces.assemble import Completion
from proxy.surfaces.messages.read import MessageAssembler, read_message
from proxy.surfaces.messages.view import chat_view
from proxy.surfaces.messages.write import StudentMessage
from proxy.surfaces.surface import Body
from store.chat.student_wire import StudentAnswer
from store.records import Api

_TYPES: Types = {
    "stream": ((bool,), "a boolean"),
    "max_tokens": ((int,), "an integer"),
    "temperature": ((int, float), "a number"),
    "top_p": ((int, float), "a number"),
    "system": ((str, list), "a string or an array of text blocks"),
    "stop_sequences": ((list,), "an array of strings"),
    "metadata": ((dict,), "an object"),
    "tools": ((list,), "an array"),
    "tool_choice": ((dict,), "an object"),
    "output_config": ((dict,), "an object"),
    "output_format": ((dict,), "an object"),
}
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


class Messages:
    """What Anthropic's clients speak."""

    api: Api = "messages"
    operation_name = "chat"
    path = "/v1/messages"
    request_id = b"request-id"

    def parse(self, raw: bytes) -> Body:
        """The request. Raises ApiError 400."""
        body = parse_object(raw)
        check_model(body.get("model"))
        check_messages(body.get("messages"))
        check_types(body, _TYPES)
        user = (body.get("metadata") or {}).get("user_id")
        if user is not None and not isinstance(user, str):
            raise wrong_type("metadata.user_id", "a string", user)
        return body

    def chat_view(self, body: Body) -> Body:
        """See proxy.surfaces.messages.view."""
        return chat_view(body)

    def read(self, raw: bytes) -> Completion:
        """What a `message` object says."""
        return read_message(raw)

    def assembler(self) -> MessageAssembler:
        """Reads the events from `message_start` to `message_stop`."""
        return MessageAssembler()

    def student_answer(
        self, answer: StudentAnswer, body: Body, *, trace_id: str, student_id: str
    ) -> StudentMessage:
        """A `message`, or its events."""
        return StudentMessage(answer, trace_id=trace_id, model=body["model"])

    def error(self, error: ApiError) -> bytes:
        """`{"type": "error", "error": {…}, "request_id": …}`."""
        kind = "invalid_request_error" if error.status < 500 else "api_error"
        said = {"type": _ERROR_TYPES.get(error.status, kind), "message": error.message}
        return orjson.dumps({"type": "error", "error": said, "request_id": error.request_id})
