"""Requests without messages: their prompts or inputs, as messages of the user."""

from __future__ import annotations

from typing import Any, ClassVar

from proxy.http.json_body import Types, check_model, check_types, parse_object
from proxy.surfaces.chat.read import CompletionAssembler
from proxy.surfaces.surface import Request, Surface
from store.jsontext import JsonObject

_TYPES: Types = {
    "stream": ((bool,), "a boolean"),
    "store": ((bool,), "a boolean"),
    "user": ((str,), "a string"),
    "metadata": ((dict,), "an object"),
}


class PromptSurface(Surface):
    """The common part of the surfaces with prompts. No student answers there."""

    for_students = False
    any_model = True  # a teacher has more models than a config names for chat completions
    prompt: ClassVar[str]  # the field that holds the prompts

    def read_request(self, raw: bytes, key_hash: str | None) -> Request:
        body = parse(raw)
        return Request(raw, body, prompt_view(body, self.prompt))

    def assembler(self) -> CompletionAssembler:
        """Reads chunks, also of a teacher that streams unasked."""
        return CompletionAssembler()


def parse(raw: bytes) -> JsonObject:
    """A request with prompts. Raises ApiError 400 on what cannot be one.

    The prompts are not checked: some teachers take more than OpenAI does.
    """
    body = parse_object(raw)
    check_model(body.get("model"))
    check_types(body, _TYPES)
    return body


def prompt_view(body: JsonObject, name: str) -> JsonObject:
    """The request with `messages` in place of the field of this name: see `messages_of`."""
    view = {other: value for other, value in body.items() if other != name}
    view["messages"] = messages_of(body.get(name))
    return view


def messages_of(prompt: Any) -> list[JsonObject]:
    """A message per prompt. A prompt is a string or an array of token ids.

    Token ids become the message's content as they are.
    """
    if prompt is None:
        return []
    single = not isinstance(prompt, list) or any(isinstance(token, int) for token in prompt[:1])
    return [{"role": "user", "content": one} for one in ([prompt] if single else prompt)]
