"""A trace without its content: that there was an exchange, and what it took, but nothing of it."""

from __future__ import annotations

import msgspec
import orjson

from store.records import Trace

# Numbers and switches of a request that say how it is to be answered. Fields of other names are
# not kept even when they hold a number: a name may be content too. `seed` may be a customer's.
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
    """The trace as it is kept of a client that has opted out.

    Hashes go too. What a short input says can be found out by trying, and so can a name in a system
    prompt that is otherwise known, which the fingerprint is a hash of.
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
