"""The surface of legacy completions: `POST /v1/completions`. Logged, never a student's."""

from __future__ import annotations

import orjson

from proxy.surfaces.assemble import Completion, take_head
from proxy.surfaces.prompts import PromptSurface, prompt_view
from proxy.surfaces.surface import Body
from store.records import Api


class TextCompletions(PromptSurface):
    """A prompt, and the text that goes on from there."""

    api: Api = "completions"
    operation_name = "text_completion"
    path = "/v1/completions"

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
