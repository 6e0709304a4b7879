"""The surface of legacy completions: `POST /v1/completions`. Logged, never a student's."""

from __future__ import annotations

import orjson

from proxy.errors import ApiError
from proxy.surfaces.assemble import Completion, StreamAssembler, take_head
from proxy.surfaces.prompts import parse_prompt_body, prompt_view
from proxy.surfaces.surface import Body, Served
from store.models import Api
from store.student_wire import StudentAnswer


class TextCompletions:
    """A prompt, and the text that goes on from there."""

    api: Api = "completions"
    operation_name = "text_completion"
    path = "/v1/completions"
    request_id = b"x-request-id"
    students = False

    def parse(self, raw: bytes) -> Body:
        """The request. Raises ApiError 400."""
        return parse_prompt_body(raw)

    def chat_view(self, body: Body) -> Body:
        """The request with its prompts as messages of the user."""
        return prompt_view(body, "prompt")

    def read(self, raw: bytes) -> Completion:
        """What a `text_completion` object says: a message a choice."""
        completion = Completion()
        try:
            payload = orjson.loads(raw)
            take_head(completion, payload)
            for choice in payload.get("choices") or ():
                message = {"role": "assistant", "content": choice.get("text")}
                completion.messages.append(message)
                if choice.get("finish_reason"):
                    completion.finish_reasons.append(str(choice["finish_reason"]))
        except (orjson.JSONDecodeError, AttributeError, TypeError):
            pass
        return completion

    def assembler(self) -> StreamAssembler:
        """Reads chunks of `text_completion`."""
        return StreamAssembler()

    def student_answer(
        self, answer: StudentAnswer, body: Body, *, trace_id: str, student_id: str
    ) -> Served:
        """Never asked for: no student answers here."""
        raise NotImplementedError(self.path)

    def error(self, error: ApiError) -> bytes:
        """`{"error": {…}}`."""
        return error.body()
