"""Parses a body of JSON, and checks the types that we rely on, in OpenAI's words."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from proxy.http.errors import ApiError, bad_request, too_deep, too_many_values
from store.jsontext import JsonObject

_NOT_JSON = (
    "We could not parse the JSON body of your request. The API expects a JSON payload, but what "
    "was sent was not valid JSON."
)
MAX_VALUES = 8_000_000  # some 64 bytes of memory each, and 50 ns; far beyond any context window
_MAX_DEPTH = 200  # orjson writes 254 levels, and we wrap some around
# null counts as absent, and bool is no number in JSON. Ranges are left to the teacher.
Types = dict[str, tuple[tuple[type, ...], str]]  # field → (types, what a message calls them)

_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)

_CONTENT = (str, list, type(None))  # what a message's content may be


def parse_object(raw: bytes) -> JsonObject:
    """A body that has to be a JSON object. Raises ApiError 400 on anything else."""
    if len(raw) > MAX_VALUES and most_values(raw) > MAX_VALUES:
        raise too_many_values(MAX_VALUES)
    # `count` takes three times as long
    others = len(raw.replace(b"[", b"")) + len(raw.replace(b"{", b""))
    containers = 2 * len(raw) - others
    body = _parse_json(raw)
    if not isinstance(body, dict):
        raise bad_request("The body of your request must be a JSON object.")
    if containers > _MAX_DEPTH:
        _check_depth(body)
    return body


def most_values(raw: bytes) -> int:
    """How many values a text of JSON has at most: each follows a comma or begins a container."""
    marks = _marks(raw)  # those within texts included
    return marks if marks <= MAX_VALUES else _marks(_TEXT.sub(b"", raw))


def _marks(raw: bytes) -> int:
    return 1 + sum(len(raw) - len(raw.replace(mark, b"")) for mark in (b",", b"[", b"{"))


def check_types(fields: JsonObject, types: Types, path: str = "") -> None:
    """Raises ApiError 400 where a field is of another type. null counts as absent.

    `path`: where in the body these fields are, with a dot at its end.
    """
    for name, value in fields.items():
        if name in types and value is not None:
            fitting, words = types[name]
            if type(value) not in fitting:
                raise wrong_type(f"{path}{name}", words, value)


def _check_depth(body: JsonObject) -> None:
    """Refuses JSON that is nested too deeply to be written again.

    It is wrapped as deeply as a surface's view may wrap a part of the body.
    """
    try:
        orjson.dumps([[[[body]]]])
    except TypeError:
        raise too_deep() from None


def _parse_json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _parse_lone_surrogates(raw)


def _parse_lone_surrogates(raw: bytes) -> Any:
    r"""JSON with half a surrogate pair (`\ud800`), which orjson does not read.

    JavaScript cuts strings there, and OpenAI accepts them. Here U+FFFD replaces it.
    """
    try:
        text = json.dumps(json.loads(raw, parse_constant=_refuse), ensure_ascii=False)
        return orjson.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, RecursionError):
        raise bad_request(_NOT_JSON) from None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def check_model(model: Any) -> None:
    """Raises ApiError 400 if no model is named."""
    if model is None:
        raise bad_request("you must provide a model parameter", param="model")
    if not isinstance(model, str):
        raise wrong_type("model", "a string", model)


def check_messages(messages: Any) -> None:
    """Raises ApiError 400 unless this is a list of messages with roles."""
    if messages is None:
        raise bad_request(
            "Missing required parameter: 'messages'.",
            param="messages",
            code="missing_required_parameter",
        )
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise bad_request(
            "Invalid 'messages': empty array. Expected an array with minimum length 1.",
            param="messages",
            code="empty_array",
        )
    for number, message in enumerate(messages):
        if type(message) is not dict:
            raise wrong_type(f"messages[{number}]", "an object", message)
        if type(message.get("role")) is not str or type(message.get("content")) not in _CONTENT:
            raise _invalid_message(f"messages[{number}]", message)


def _invalid_message(where: str, message: JsonObject) -> ApiError:
    role = message.get("role")
    if role is None:
        return bad_request(
            f"Missing required parameter: '{where}.role'.",
            param=f"{where}.role",
            code="missing_required_parameter",
        )
    if not isinstance(role, str):
        return wrong_type(f"{where}.role", "a string", role)
    content = message.get("content")
    return wrong_type(f"{where}.content", "a string or an array of parts", content)


def wrong_type(param: str, expected: str, value: Any) -> ApiError:
    """400: a field of the body has another JSON type than `expected`."""
    names = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string"}
    names |= {list: "an array", dict: "an object", type(None): "null"}
    return bad_request(
        f"Invalid type for '{param}': expected {expected}, but got {names[type(value)]} instead.",
        param=param,
        code="invalid_type",
    )
