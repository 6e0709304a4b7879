"""The surface of the Responses API: `POST /v1/responses`."""

from __future__ import annotations

from typing import ClassVar

import orjson

from proxy.surfaces.completion import Completion
from proxy.surfaces.responses.read import ResponseAssembler, read_response
from proxy.surfaces.responses.request import parse
from proxy.surfaces.responses.stored import StoredResponses, our_name_in
from proxy.surfaces.responses.view import chat_view
from proxy.surfaces.responses.write import StudentResponse
from proxy.surfaces.surface import Request, Surface, WrittenAnswer
from store.chat.student_wire import StudentAnswer
from store.jsontext import JsonObject
from store.records import Api, Content


class Responses(Surface):
    """Typed items in and out. Clients may come back to a response, so students' ones are kept."""

    api: ClassVar[Api] = "responses"
    path = "/v1/responses"

    def __init__(self, stored: StoredResponses) -> None:
        self._stored = stored

    def read_request(self, raw: bytes, key_hash: str | None) -> Request:
        """The request, with the text of each kept response in place of its name.

        Raises ApiError, as OpenAI would, if a named response is not there. In the chat completion
        the name remains, so that the teacher answers.
        """
        body = parse(raw)
        name = our_name_in(body)
        if name is None:
            return Request(raw, body, chat_view(body))
        body = self._stored.resolved(body, key_hash)
        return Request(orjson.dumps(body), body, chat_view(body) | {"previous_response_id": name})

    def read_answer(self, raw: bytes) -> Completion:
        return read_response(raw)

    def assembler(self) -> ResponseAssembler:
        return ResponseAssembler()

    def write_answer(
        self, answer: StudentAnswer, body: JsonObject, *, trace_id: str, student_id: str
    ) -> StudentResponse:
        return StudentResponse(answer, body, trace_id=trace_id)

    def may_keep(self, body: JsonObject, content: Content) -> bool:
        return self._stored.may_keep(body, content)

    def keep_answer(
        self,
        answer: WrittenAnswer,
        body: JsonObject,
        content: Content,
        *,
        trace_id: str,
        key_hash: str | None,
    ) -> bool:
        return self._stored.keep(
            answer.whole(), body, content, trace_id=trace_id, key_hash=key_hash
        )
