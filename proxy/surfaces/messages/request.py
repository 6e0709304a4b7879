"""What a request to the Messages API must be for us to understand it.

Only the types that we rely on are checked. Which values it takes is the teacher's business.
"""

from __future__ import annotations

from proxy.http.json_body import (
    Types,
    check_messages,
    check_model,
    check_types,
    parse_object,
    wrong_type,
)
from store.jsontext import JsonObject

_TYPES: Types = {
    "stream": ((bool,), "a boolean"),
    "max_tokens": ((int,), "an integer"),
    "temperature": ((int, float), "a number"),
    "top_p": ((int, float), "a number"),
    "system": ((str, list), "a string or an array of text blocks"),
    "stop_sequences": ((list,), "an array of strings"),
    "metadata": ((dict,), "an object"),
    "tools": ((list,), "an array"),
    "tool_choice": ((dict,), "an object"),
    "output_config": ((dict,), "an object"),
    "output_format": ((dict,), "an object"),
}


def parse(raw: bytes) -> JsonObject:
    """The request. Raises ApiError 400 on what cannot be one."""
    body = parse_object(raw)
    check_model(body.get("model"))
    check_messages(body.get("messages"))
    check_types(body, _TYPES)
    user = (body.get("metadata") or {}).get("user_id")
    if user is not None and not isinstance(user, str):
        raise wrong_type("metadata.user_id", "a string", user)
    return body
