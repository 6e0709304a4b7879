"""What a request to the Responses API has to be for us to understand it.

As in proxy.http.body: only the types that are relied on, in OpenAI's words. What the teacher makes
of the rest is between it and the client.
"""

from __future__ import annotations

from typing import Any

import orjson

from proxy.http.body import parse_object, wrong_type
from proxy.http.errors import bad_request, too_deep

# Field → (types, what a message calls them). null counts as absent, and bool is no number in JSON.
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "model": ((str,), "a string"),
    "input": ((str, list), "a string or an array of input items"),
    "stream": ((bool,), "a boolean"),
    "stream_options": ((dict,), "an object"),
    "store": ((bool,), "a boolean"),
    "background": ((bool,), "a boolean"),
    "parallel_tool_calls": ((bool,), "a boolean"),
    "temperature": ((int, float), "a number"),
    "top_p": ((int, float), "a number"),
    "max_output_tokens": ((int,), "an integer"),
    "previous_response_id": ((str,), "a string"),
    "user": ((str,), "a string"),
    "metadata": ((dict,), "an object"),
    "text": ((dict,), "an object"),
    "reasoning": ((dict,), "an object"),
    "prompt": ((dict,), "an object"),
    "tools": ((list,), "an array of objects"),
    "include": ((list,), "an array of strings"),
}
_ITEM_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "type": ((str,), "a string"),
    "role": ((str,), "a string"),
}
_CONTENT = (str, list, type(None))  # what a message's content may be
# one of these has to say what is asked
_ASKING = ("input", "previous_response_id", "prompt", "conversation")
_MANY_LEVELS = 200  # orjson writes 254 levels
_WRAPPED = 4  # levels that a view, a fingerprint and a kept response put around a field


def parse_responses_body(raw: bytes) -> dict[str, Any]:
    """The request. Raises ApiError 400 on what cannot be one."""
    body = parse_object(raw)
    if raw.count(b"[") + raw.count(b"{") > _MANY_LEVELS:
        _check_depth(body)
    _check_types(body, _TYPES)
    if body.get("model") is None and body.get("prompt") is None:  # a prompt may name the model
        raise bad_request(
            "Missing required parameter: 'model'.",
            param="model",
            code="missing_required_parameter",
        )
    if all(body.get(name) is None for name in _ASKING):
        raise bad_request(
            "Missing required parameter: 'input'.",
            param="input",
            code="missing_required_parameter",
        )
    if isinstance(body.get("input"), list):
        for number, item in enumerate(body["input"]):
            _check_item(f"input[{number}]", item)
    return body


def _check_item(where: str, item: Any) -> None:
    if type(item) is not dict:
        raise wrong_type(where, "an object", item)
    _check_types(item, _ITEM_TYPES, f"{where}.")
    if item.get("type") in (None, "message") and type(item.get("content")) not in _CONTENT:
        raise wrong_type(f"{where}.content", "a string or an array of parts", item["content"])


def _check_types(
    given: dict[str, Any], types: dict[str, tuple[tuple[type, ...], str]], where: str = ""
) -> None:
    for name in types.keys() & given.keys():
        allowed, words = types[name]
        value = given[name]
        if value is not None and type(value) not in allowed:
            raise wrong_type(f"{where}{name}", words, value)


def _check_depth(body: dict[str, Any]) -> None:
    """What is nested so deeply that it could not be written again is refused."""
    wrapped: Any = body
    for _ in range(_WRAPPED):
        wrapped = [wrapped]
    try:
        orjson.dumps(wrapped)
    except TypeError:
        raise too_deep() from None
