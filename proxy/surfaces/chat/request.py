"""What a chat completion request must be for us to understand it.

Only the types that we rely on are checked. Which values it takes is the teacher's business.
"""

from __future__ import annotations

from proxy.http.json_body import Types, check_messages, check_model, check_types, parse_object
from store.jsontext import JsonObject

_TYPES: Types = {
    "stream": ((bool,), "a boolean"),
    "n": ((int,), "an integer"),
    "max_tokens": ((int,), "an integer"),
    "max_completion_tokens": ((int,), "an integer"),
    "temperature": ((int, float), "a number"),
    "top_p": ((int, float), "a number"),
    "logprobs": ((bool,), "a boolean"),
    "store": ((bool,), "a boolean"),
    "user": ((str,), "a string"),
    "metadata": ((dict,), "an object"),
    "stream_options": ((dict,), "an object"),
    "response_format": ((dict,), "an object"),
    "tools": ((list,), "an array"),
    "functions": ((list,), "an array"),
    "stop": ((str, list), "a string or an array of strings"),
}


def parse(raw: bytes) -> JsonObject:
    """A chat completion request. Raises ApiError 400 on what cannot be one.

    Unknown fields are welcome: what the teacher makes of them is between it and the client.
    """
    body = parse_object(raw)
    check_model(body.get("model"))
    check_messages(body.get("messages"))
    check_types(body, _TYPES)
    return body
