"""Translates a Responses request to the chat completion that asks the same. Pure functions.

    instructions, input      → messages        text.format          → response_format
    tools (functions)        → tools           max_output_tokens    → max_completion_tokens
    text.verbosity           → verbosity       reasoning.effort     → reasoning_effort

Fields that ask for nothing are left out, and those without an equal keep their name, for which no
student is certified (proxy.routing). Input items other than messages, and references to input
elsewhere (`previous_response_id`, `conversation`, `prompt`), become messages of a role that no chat
has: the log has them in their place, and no student learns from an incomplete conversation.
"""

from __future__ import annotations

from typing import Any

from proxy.routing.decision import HONOURED, IDLE, asks_nothing
from store.chat.tools import FIELDS as TOOL_FIELDS
from store.jsontext import JsonObject

# Field → its values that ask for nothing. null always asks for nothing.
_IDLE: dict[str, tuple[Any, ...]] = {
    "background": (False,),
    "include": ([],),
    "reasoning": ({},),
    "store": (True,),  # a student's response is kept too: surfaces.responses.stored
    "text": ({},),
    "tools": ([],),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
    "tool_choice": ("auto",),
    "parallel_tool_calls": (True,),
}
_IDLE_WITHOUT_TOOLS = {
    **_IDLE,
    "tool_choice": ("auto", "none"),
    "parallel_tool_calls": (True, False),
}
_ELSEWHERE = ("previous_response_id", "conversation", "prompt")  # refer to a part of the input
_ASKED = frozenset({"model", "input", "instructions"})
_SAME = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "user",
    }
)
# Chat completions' names that this API does not have, or uses for something else.
_CHATS_OWN = (HONOURED | IDLE.keys() | set(TOOL_FIELDS)) - _SAME


def chat_view(body: JsonObject) -> JsonObject:
    """The chat completion. `body` has been checked (surfaces.responses.request); not changed."""
    view: JsonObject = {"model": body.get("model"), "messages": _messages(body)}
    idle = _IDLE if body.get("tools") else _IDLE_WITHOUT_TOOLS
    for name, value in body.items():
        if name in _ASKED or value is None or (name in idle and asks_nothing(value, idle[name])):
            continue
        if name == "text":
            view.update(_of_text(value))
        elif name == "reasoning":
            view.update(_of_reasoning(value))
        elif name == "tools":
            view["tools"] = [_tool(tool) for tool in value]
        elif name == "tool_choice":
            view["tool_choice"] = _tool_choice(value)
        elif name == "max_output_tokens":
            view["max_completion_tokens"] = value
        else:
            view[f"responses.{name}" if name in _CHATS_OWN else name] = value
    if not isinstance(body.get("instructions"), str | None):
        view["instructions"] = body["instructions"]
    if body.get("input") == []:
        view["input"] = []
    return view


def _of_text(text: JsonObject) -> JsonObject:
    """The answer's format, as `text` states it."""
    fields: JsonObject = {}
    others = {}
    for name, value in text.items():
        if name == "format" and isinstance(value, dict):
            if value.get("type") == "json_schema":
                schema = {key: inner for key, inner in value.items() if key != "type"}
                fields["response_format"] = {"type": "json_schema", "json_schema": schema}
            elif value != {"type": "text"}:
                fields["response_format"] = value
        elif name == "verbosity":
            if value not in (None, "medium"):
                fields["verbosity"] = value
        elif value is not None:
            others[name] = value
    if others:
        fields["text"] = others
    return fields


def _of_reasoning(reasoning: JsonObject) -> JsonObject:
    given = {name: value for name, value in reasoning.items() if value is not None}
    if given.keys() == {"effort"}:
        return {"reasoning_effort": given["effort"]}
    return {"reasoning": given} if given else {}


# ---- tools ---------------------------------------------------------------------------------------


def _tool(tool: Any) -> Any:
    """A function in chat's form; any other tool as it is."""
    if not isinstance(tool, dict) or tool.get("type") != "function" or "function" in tool:
        return tool
    function = {key: value for key, value in tool.items() if key != "type" and value is not None}
    return {"type": "function", "function": function}


def _tool_choice(choice: Any) -> Any:
    if not isinstance(choice, dict):
        return choice
    if choice.keys() == {"type", "name"} and choice["type"] == "function":
        return {"type": "function", "function": {"name": choice["name"]}}
    return choice


# ---- input ---------------------------------------------------------------------------------------


def _messages(body: JsonObject) -> list[JsonObject]:
    messages: list[JsonObject] = []
    instructions, inputs = body.get("instructions"), body.get("input")
    if instructions and isinstance(instructions, str):
        messages.append({"role": "system", "content": instructions})
    for name in _ELSEWHERE:
        if body.get(name) is not None:
            messages.append({"role": _role(name), "content": None, name: body[name]})
    if isinstance(inputs, str):
        messages.append({"role": "user", "content": inputs})
    for item in inputs if isinstance(inputs, list) else ():
        _add(item, messages)
    return messages


def _add(item: JsonObject, messages: list[JsonObject]) -> None:
    """Adds an input item. Calls belong to the assistant's message before them."""
    kind = item.get("type") or "message"
    if kind == "message" and item.get("role"):
        others = _others(item, "type", "role", "content", "id", "status")
        content = _content(item.get("content"))
        messages.append({"role": item["role"], "content": content, **others})
    elif kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        others = _others(item, "type", "name", "arguments", "call_id", "id", "status")
        call = {"id": item.get("call_id"), "type": "function", "function": function, **others}
        calls = messages[-1].get("tool_calls", []) if messages else None
        if not messages or messages[-1]["role"] != "assistant" or not isinstance(calls, list):
            messages.append({"role": "assistant", "content": None})
        messages[-1].setdefault("tool_calls", []).append(call)
    elif kind == "function_call_output":
        output = _content(item.get("output"))
        others = _others(item, "type", "output", "call_id", "id", "status")
        messages.append(
            {"role": "tool", "tool_call_id": item.get("call_id"), "content": output, **others}
        )
    else:
        messages.append({"content": None, **item, "role": _role(kind)})


def _role(kind: str) -> str:
    """A role that no chat has."""
    return f"item:{kind}"


def _others(item: JsonObject, *known: str) -> JsonObject:
    return {name: value for name, value in item.items() if name not in known and value is not None}


def _content(content: Any) -> Any:
    """A message's content: a single text becomes a string, as in most chat completions."""
    if not isinstance(content, list):
        return content
    parts = [_part(part) for part in content]
    alone = parts[0] if len(parts) == 1 and isinstance(parts[0], dict) else {}
    if alone.keys() == {"type", "text"} and alone["type"] == "text" and type(alone["text"]) is str:
        return alone["text"]
    return parts


def _part(part: Any) -> Any:
    if not isinstance(part, dict) or part.get("type") not in ("input_text", "output_text"):
        return part
    # citations and probabilities stay if there are any
    return {name: value for name, value in part.items() if value or name == "text"} | {
        "type": "text"
    }
