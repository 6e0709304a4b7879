"""What a logged request asked for, and what its answer is to a student: the text that it learns.

That is the words of the answer, or, where the request had tools, the JSON object of
store.chat.tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from distill.dataset.traffic import from_json, request_of
from store.chat.shape import fingerprint, text_of
from store.chat.tools import FIELDS as TOOL_FIELDS
from store.chat.tools import beyond_students, read_said, rules, target_of
from store.jsontext import read_json

# what is sent again when the teacher is asked for a synthetic input; all else is a client's own
# business (`metadata`, `user`, `stream`…) or cannot be learnt from (`n`, `logprobs`)
REASKED_PARAMS = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "response_format",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "reasoning_effort",
    "verbosity",
    *TOOL_FIELDS,
)


def params_of(trace: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a request is asked with again, with its tools."""
    logged = _with_tools(trace)
    return {name: logged[name] for name in REASKED_PARAMS if logged.get(name) is not None}


def model_of(trace: Mapping[str, Any]) -> str:
    """The teacher, as the client named it; empty when it is not known."""
    named = trace.get("request_model") or (from_json(trace["request_params"]) or {}).get("model")
    return str(named or "")


def why_not_tools(trace: Mapping[str, Any]) -> str:
    """Why what a request says of tools cannot be learnt, in one word; empty when it can."""
    if not trace.get("tool_definitions"):
        return ""
    logged = _with_tools(trace)
    if beyond_students(logged):
        return "tools"
    # before `tool_choice` was part of the fingerprint it was logged under that of another request
    if rules(logged) and fingerprint(request_of(trace)) != trace["fingerprint"]:
        return "old_fingerprint"
    return ""


def answer_in(message: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """What a student should have answered, by the teacher's message or another's.

    `params`: the request's. Empty when there is nothing that it could.
    """
    if params.get("tools"):
        return target_of(message) or ""
    if message.get("tool_calls") or message.get("function_call"):
        return ""
    return text_of(message.get("content"))


def corrected(correction: str, params: Mapping[str, Any]) -> str:
    """A client's correction as what a student should have answered.

    With tools it may be a student's JSON object, or OpenAI's message or list of its tool calls;
    anything else is words.
    """
    if not params.get("tools") or read_said(correction) is not None:
        return correction
    try:
        value = read_json(correction)
    except ValueError:
        value = None
    message = {"tool_calls": value} if isinstance(value, list) else value
    found = None
    if isinstance(message, dict) and message.get("tool_calls"):
        found = target_of(message)
    return found or target_of({"content": correction}) or ""


def _with_tools(trace: Mapping[str, Any]) -> dict[str, Any]:
    params = from_json(trace["request_params"]) or {}
    definitions = trace.get("tool_definitions")
    if not definitions:
        return {**params, "tools": None}
    tools = _tools(definitions) if isinstance(definitions, str) else definitions
    return {**params, "tools": tools}


@lru_cache(maxsize=64)
def _tools(definitions: str) -> Any:
    """Read once: thousands of rows share the same ones."""
    return orjson.loads(definitions)
