"""A trace without its content: times, tokens and costs alone."""

from __future__ import annotations

import msgspec
import orjson

from store.records import Trace

# Parameters that hold no content. Fields of other names are dropped even if they hold a number: a
# name may be content too. `seed` may be a customer's number.
KEPT_PARAMS = (
    "frequency_penalty",
    "logprobs",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
    "store",
    "stream",
    "temperature",
    "top_k",
    "top_logprobs",
    "top_p",
)


def without_content(trace: Trace) -> Trace:
    """The trace of a client that has opted out.

    Without hashes: a short input, or a name in a known system prompt, could be found by trying.
    """
    params = orjson.loads(trace.request_params)
    numbers = {
        name: params[name]
        for name in KEPT_PARAMS
        if isinstance(params.get(name), bool | int | float)
    }
    return msgspec.structs.replace(
        trace,
        content="none",
        request_params=orjson.dumps({"model": trace.request_model, **numbers}).decode(),
        tool_definitions=None,
        input_messages="[]",
        output_messages=None,
        input_hash="",
        fingerprint="",
        end_user=None,
    )
