"""The surface of chat completions: `POST /v1/chat/completions`."""

from __future__ import annotations

from typing import ClassVar

from proxy.surfaces.chat.read import CompletionAssembler, read_completion
from proxy.surfaces.chat.request import parse
from proxy.surfaces.chat.write import StudentCompletion
from proxy.surfaces.completion import Completion
from proxy.surfaces.surface import Request, Surface
from store.chat.student_wire import StudentAnswer
from store.jsontext import JsonObject
from store.records import Api


class ChatCompletions(Surface):
    """The form in which students are trained and certified, so a request is its own view."""

    api: ClassVar[Api] = "chat_completions"
    path = "/v1/chat/completions"

    def read_request(self, raw: bytes, key_hash: str | None) -> Request:
        body = parse(raw)
        return Request(raw, body, body)

    def read_answer(self, raw: bytes) -> Completion:
        return read_completion(raw)

    def assembler(self) -> CompletionAssembler:
        return CompletionAssembler()

    def write_answer(
        self, answer: StudentAnswer, body: JsonObject, *, trace_id: str, student_id: str
    ) -> StudentCompletion:
        options = body.get("stream_options") or {}
        return StudentCompletion(
            answer,
            trace_id=trace_id,
            student_id=student_id,
            model=body["model"],
            include_usage=bool(options.get("include_usage")),
        )
