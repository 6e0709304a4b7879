"""Tool calls: which requests a student can do, and the text in which it learns to call.

A student does not see a request's tools: the fingerprint fixes them. It answers in JSON, which it
learns from the teacher's answers in the same form:

    {"name": "book", "arguments": {"seats": 2}}     a call; several are a list of such objects
    {"content": "For how many people?"}             an answer in words

Base models know calls in this form and spacing, and it takes few tokens. Calls, and keys of
arguments, keep the teacher's order: an argument may follow from the one before it. Text beside
calls is dropped: the calls are the answer. Pure functions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from store.jsontext import JsonMapping, JsonObject, read_json

FIELDS = ("tools", "tool_choice", "parallel_tool_calls")  # fields of a request about its tools


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a function."""

    name: str
    arguments_json: str  # a JSON object
    id: str = ""  # as a client gets it, in the teacher's form; empty: none is known

    @property
    def arguments(self) -> JsonObject:
        """The arguments by name."""
        arguments: JsonObject = json.loads(self.arguments_json)
        return arguments


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """An answer to a request with tools: calls, or words."""

    calls: tuple[ToolCall, ...] = ()
    text: str = ""  # empty with calls

    @property
    def names(self) -> list[str]:
        """The functions that it calls, sorted; one empty name for an answer in words."""
        return sorted(call.name for call in self.calls) or [""]


# ---- requests ------------------------------------------------------------------------------------


def beyond_students(request: JsonMapping) -> bool:
    """Whether a request uses tools in a way that no student supports.

    Supported: functions with different names; `tool_choice` as none, auto, required or a function's
    name; `parallel_tool_calls`. Not: tools of other types, the old `functions`, lists of allowed
    tools, and `stop`, which would be searched in the JSON instead of the text.
    """
    tools = request.get("tools")
    if not tools:
        return tools not in (None, []) or any(request.get(n) is not None for n in FIELDS[1:])
    if request.get("functions") or request.get("function_call") or request.get("stop"):
        return True
    if not isinstance(tools, list) or not all(map(_is_function, tools)):
        return True
    names = {tool["function"]["name"] for tool in tools}
    choice, parallel = request.get("tool_choice"), request.get("parallel_tool_calls")
    known = choice in (None, "none", "auto", "required") or forced(request) in names
    return not known or len(names) < len(tools) or not isinstance(parallel, bool | None)


def forced(request: JsonMapping) -> str | None:
    """The one function that `tool_choice` names; None when it names none."""
    choice = request.get("tool_choice")
    if not isinstance(choice, dict) or choice.get("type") != "function" or len(choice) != 2:
        return None
    function = choice.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def rules(request: JsonMapping) -> JsonObject:
    """The request's settings for the use of its tools that differ from the defaults.

    Part of the fingerprint if not empty.
    """
    choices = {}
    if request.get("tool_choice") not in (None, "auto"):
        choices["tool_choice"] = request["tool_choice"]
    if request.get("parallel_tool_calls") not in (None, True):
        choices["parallel_tool_calls"] = request["parallel_tool_calls"]
    return choices


def _is_function(tool: Any) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    return (
        isinstance(function, dict)
        and tool.get("type") == "function"
        and isinstance(function.get("name"), str)
        and isinstance(function.get("parameters"), dict | None)
    )


# ---- answers -------------------------------------------------------------------------------------


def target_of(message: JsonMapping) -> str | None:
    """The training target from the teacher's message, for a request with tools.

    None without one: a refusal, an empty message, a call of something other than a function, or
    arguments that are no JSON object.
    """
    calls = message.get("tool_calls")
    if message.get("function_call") or message.get("refusal"):
        return None
    if not calls:
        text = message.get("content")
        return _learnt({"content": text}) if isinstance(text, str) and text.strip() else None
    try:
        called = [_called(call) for call in calls]
        return _learnt(called[0] if len(called) == 1 else called)
    except (KeyError, TypeError, AttributeError, ValueError):
        return None


def read_tool_answer(text: str) -> ToolAnswer | None:
    """A student's text, parsed; None when it is neither calls nor an answer in words."""
    try:
        value = read_json(text)
    except ValueError:
        return None
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(map(_is_call, calls)):
        words = value.get("content") if isinstance(value, dict) and len(value) == 1 else None
        return ToolAnswer(text=words) if isinstance(words, str) and words.strip() else None
    return ToolAnswer(tuple(ToolCall(call["name"], _sent(call["arguments"])) for call in calls))


def allowed(answer: ToolAnswer, request: JsonMapping) -> bool:
    """Whether a request's tools and `tool_choice` allow these calls, or an answer in words.

    Does not check the arguments against the function's schema.
    """
    choice = request.get("tool_choice")
    if not answer.calls:
        return choice in (None, "auto", "none")
    name = forced(request)
    if choice == "none" or (len(answer.calls) > 1 and request.get("parallel_tool_calls") is False):
        return False
    known = {tool["function"]["name"] for tool in request["tools"]} if name is None else {name}
    return all(call.name in known for call in answer.calls)


def finish_reason(answer: ToolAnswer, request: JsonMapping) -> str:
    """The finish reason, as OpenAI gives it: `stop` when the request forced the call."""
    return "tool_calls" if answer.calls and forced(request) is None else "stop"


def parameters(name: str, request: JsonMapping) -> JsonObject:
    """The JSON schema of a function's arguments; an empty one if the function has none."""
    for tool in request["tools"]:
        if tool["function"]["name"] == name:
            schema = tool["function"].get("parameters")
            return {"maxProperties": 0} if schema is None else schema
    return {"not": {}}


def _called(call: JsonMapping) -> JsonObject:
    if call.get("type", "function") != "function":
        raise ValueError("not a function")
    function = call["function"]
    arguments = function["arguments"] or "{}"
    if not isinstance(arguments, dict):  # some servers send the object itself
        arguments = read_json(arguments)
    plain = {"name": function["name"], "arguments": arguments}
    if not _is_call(plain):
        raise ValueError("not a call")
    return plain


def _is_call(call: Any) -> bool:
    return (
        isinstance(call, dict)
        and len(call) == 2
        and isinstance(call.get("name"), str)
        and isinstance(call.get("arguments"), dict)
    )


# the standard library's JSON, as orjson knows no integers beyond 64 bits


def _learnt(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _sent(value: Any) -> str:
    """Compact, as OpenAI sends it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
