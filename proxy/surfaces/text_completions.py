"""The surface of legacy completions: `POST /v1/completions`. No student answers."""

from __future__ import annotations

from typing import ClassVar

import orjson

from proxy.surfaces.completion import BOM, UNREAD, Completion, take_head
from proxy.surfaces.prompts import PromptSurface
from store.records import Api


class TextCompletions(PromptSurface):
    """A prompt, and the text that continues it."""

    api: ClassVar[Api] = "completions"
    operation_name = "text_completion"
    path = "/v1/completions"
    prompt = "prompt"

    def read_answer(self, raw: bytes) -> Completion:
        """A `text_completion` object, with a message per choice."""
        completion = Completion()
        try:
            payload = orjson.loads(raw.removeprefix(BOM))
            take_head(completion, payload)
            for choice in payload.get("choices") or ():
                message = {"role": "assistant", "content": choice.get("text")}
                completion.messages.append(message)
                if choice.get("finish_reason"):
                    completion.finish_reasons.append(str(choice["finish_reason"]))
        except (orjson.JSONDecodeError, AttributeError, TypeError):
            completion.error_type = completion.error_type or UNREAD
        return completion
