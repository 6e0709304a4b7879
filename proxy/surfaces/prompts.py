"""What a request says that has no messages: its prompts or inputs, as messages of the user."""

from __future__ import annotations

from typing import Any

from proxy.http.body import Types, check_model, check_types, parse_object
from proxy.http.errors import ApiError
from proxy.surfaces.assemble import StreamAssembler
from proxy.surfaces.surface import Body

_TYPES: Types = {
    "stream": ((bool,), "a boolean"),
    "store": ((bool,), "a boolean"),
    "user": ((str,), "a string"),
    "metadata": ((dict,), "an object"),
}


class PromptSurface:
    """What the surfaces of prompts have in common. No student answers there."""

    request_id = b"x-request-id"

    def parse(self, raw: bytes) -> Body:
        """The request. Raises ApiError 400."""
        return parse_prompt_body(raw)

    def assembler(self) -> StreamAssembler:
        """Reads chunks, also of a teacher that streams unasked."""
        return StreamAssembler()

    def error(self, error: ApiError) -> bytes:
        """`{"error": {…}}`."""
        return error.body()


def parse_prompt_body(raw: bytes) -> dict[str, Any]:
    """A request to a model. Raises ApiError 400 on what cannot be one.

    What it is asked is left to the teacher: some take more than OpenAI does.
    """
    body = parse_object(raw)
    check_model(body.get("model"))
    check_types(body, _TYPES)
    return body


def prompt_view(body: dict[str, Any], name: str) -> dict[str, Any]:
    """The request with `messages` in place of the field of this name: see `messages_of`."""
    view = {other: value for other, value in body.items() if other != name}
    view["messages"] = messages_of(body.get(name))
    return view


def messages_of(prompt: Any) -> list[dict[str, Any]]:
    """A message for each prompt: of a string, an array of token ids, or an array of these.

    Token ids stay what they are, as the message's content.
    """
    if prompt is None:
        return []
    is_one = not isinstance(prompt, list) or any(isinstance(token, int) for token in prompt[:1])
    return [{"role": "user", "content": one} for one in ([prompt] if is_one else prompt)]
