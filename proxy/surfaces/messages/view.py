"""Translates a Messages request to the chat completion that asks the same. Pure functions.

    system                        the first message
    text blocks                   text parts; `cache_control` is left out, it changes no answer
    max_tokens                    max_completion_tokens
    stop_sequences                stop, and stays: an answer states which of them ended it
    metadata.user_id              user
    tools, tool_choice            functions, where they are the client's own
    output_config.format          response_format; output_format likewise

Everything else keeps its name and form, for which no student is certified: images, tool results,
`thinking`, `top_k`… A name that means something else in a chat completion becomes `messages.NAME`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy.routing.decision import HONOURED, IDLE
from store.chat.tools import FIELDS as TOOL_FIELDS
from store.jsontext import JsonObject

_ALIKE = frozenset({"model", "stream", "temperature", "top_p", "service_tier"})
# values that ask for nothing; null always asks for nothing
_ASKS_NOTHING: JsonObject = {
    "thinking": {"type": "disabled"},
    "speed": "standard",
    "mcp_servers": [],
    "stop_sequences": [],
    "tools": [],
}
_CHAT_FIELDS = HONOURED | IDLE.keys() | set(TOOL_FIELDS) | {"function_call"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_view(body: JsonObject) -> JsonObject:
    """The chat completion. `body` has been checked (surfaces.messages.request); not changed."""
    view: JsonObject = {"model": body["model"], "messages": _conversation(body)}
    for name, value in body.items():
        if name in _LEFT_OUT or value is None or value == _ASKS_NOTHING.get(name):
            continue
        translate = _TRANSLATED.get(name)
        if translate is not None:
            view.update(translate(value))
        elif name in _ALIKE:
            view[name] = value
        else:
            view[_own(name)] = value
    if body["messages"][-1]["role"] == "assistant":
        view["prefill"] = True  # the answer continues it; a chat completion's would not
    if body.get("output_format") and (body.get("output_config") or {}).get("format"):
        view["output_format"] = body["output_format"]  # two formats at once
    return view


def _own(name: str) -> str:
    return f"messages.{name}" if name in _CHAT_FIELDS else name


def _conversation(body: JsonObject) -> list[JsonObject]:
    messages = [
        {**message, "content": _content(message.get("content"))} for message in body["messages"]
    ]
    system = body.get("system")
    return [{"role": "system", "content": _content(system)}, *messages] if system else messages


def _content(content: Any) -> Any:
    return [_part(block) for block in content] if isinstance(content, list) else content


def _part(block: Any) -> Any:
    """A text block as a text part, any other block as it is."""
    if not isinstance(block, dict) or block.get("type") != "text":
        return block
    fields = block if len(block) == 2 else _set_fields(block)
    return fields if len(fields) == 2 and isinstance(fields.get("text"), str) else block


def _set_fields(block: Any) -> JsonObject:
    """The set fields of a block, a tool or a choice; empty if it is not an object."""
    if not isinstance(block, dict):
        return {}
    return {k: v for k, v in block.items() if v is not None and k != "cache_control"}


def _limit(value: int) -> JsonObject:
    # 0 asks for no answer, only to warm the teacher's cache
    return {"max_completion_tokens": value} if value > 0 else {_own("max_tokens"): value}


def _stops(value: list[Any]) -> JsonObject:
    return {"stop": value, "stop_sequences": value}


def _metadata(value: JsonObject) -> JsonObject:
    others = {k: v for k, v in value.items() if k != "user_id"}
    view: JsonObject = {"metadata": others} if others else {}
    if value.get("user_id") is not None:
        view["user"] = value["user_id"]
    return view


def _tools(value: list[Any]) -> JsonObject:
    return {"tools": [_tool(tool) for tool in value]}


def _tool(tool: Any) -> Any:
    """A client's tool as a function; a server's tool, or more than a function, as it is.

    https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview
    """
    fields = _set_fields(tool)
    parameters, kind = fields.pop("input_schema", None), fields.pop("type", "custom")
    known = {"name", "description", "strict"}
    if kind != "custom" or not isinstance(parameters, dict) or not fields.keys() <= known:
        return tool
    return {"type": "function", "function": {**fields, "parameters": parameters}}


def _tool_choice(value: JsonObject) -> JsonObject:
    fields = _set_fields(value)
    single, kind = fields.pop("disable_parallel_tool_use", False), fields.pop("type", None)
    view: JsonObject = {"parallel_tool_calls": False} if single is True else {}
    if kind == "tool" and fields.keys() == {"name"}:
        view["tool_choice"] = {"type": "function", "function": fields}
    elif isinstance(kind, str) and kind in _CHOICES and not fields and isinstance(single, bool):
        view["tool_choice"] = _CHOICES[kind]
    else:
        view["tool_choice"] = value
    return view


def _output_config(value: JsonObject) -> JsonObject:
    others = {k: v for k, v in value.items() if k != "format" and v is not None}
    view = _format("output_config", value, value.get("format")) if value.get("format") else {}
    return {"output_config": others, **view} if others else view


def _output_format(value: JsonObject) -> JsonObject:
    return _format("output_format", value, value)


def _format(name: str, value: JsonObject, wanted: Any) -> JsonObject:
    """The `response_format`, or the field as it is if there is no equal."""
    fields = _set_fields(wanted)
    if fields.pop("type", None) != "json_schema" or fields.keys() != {"schema"}:
        return {name: value}
    inner = {"name": "output", "strict": True, "schema": fields["schema"]}
    return {"response_format": {"type": "json_schema", "json_schema": inner}}


_LEFT_OUT = frozenset({"model", "messages", "system", "cache_control"})
_TRANSLATED: dict[str, Callable[[Any], JsonObject]] = {
    "max_tokens": _limit,
    "stop_sequences": _stops,
    "metadata": _metadata,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "output_config": _output_config,
    "output_format": _output_format,
}
