"""What a request to the Responses API must be for us to understand it.

Only the types that we rely on are checked, and refused in OpenAI's words. Which values it takes is
the teacher's business.
"""

from __future__ import annotations

from typing import Any

from proxy.http.errors import bad_request
from proxy.http.json_body import Types, check_types, parse_object, wrong_type
from store.jsontext import JsonObject

_TYPES: Types = {
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
_ITEM_TYPES: Types = {
    "type": ((str,), "a string"),
    "role": ((str,), "a string"),
}
_CONTENT = (str, list, type(None))  # what a message's content may be
# a request has at least one of these
_INPUTS = ("input", "previous_response_id", "prompt", "conversation")


def parse(raw: bytes) -> JsonObject:
    """The request. Raises ApiError 400 on what cannot be one."""
    body = parse_object(raw)
    check_types(body, _TYPES)
    if body.get("model") is None and body.get("prompt") is None:  # a prompt may name the model
        raise bad_request(
            "Missing required parameter: 'model'.",
            param="model",
            code="missing_required_parameter",
        )
    if all(body.get(name) is None for name in _INPUTS):
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
    check_types(item, _ITEM_TYPES, f"{where}.")
    if item.get("type") in (None, "message") and type(item.get("content")) not in _CONTENT:
        raise wrong_type(f"{where}.content", "a string or an array of parts", item["content"])
