"""Messages in the dialects of other APIs and libraries, as OpenAI's chat completions have them.

Read are OpenAI's own, LangChain's, OpenTelemetry's parts, the content blocks of Anthropic and
Bedrock, Gemini's, the AI SDK's. A message is its role, its text and its calls; what a library adds
(`additional_kwargs`, `response_metadata`, thoughts) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cli.imports.logged import Unusable
from cli.imports.values import as_list, as_object, parsed
from store.chat.shape import Messages
from store.jsontext import JsonMapping, JsonObject, to_json

_ROLES = {
    "ai": "assistant",
    "aimessage": "assistant",
    "aimessagechunk": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "developer": "developer",
    "function": "function",
    "functionmessage": "function",
    "gpt": "assistant",
    "human": "user",
    "humanmessage": "user",
    "humanmessagechunk": "user",
    "model": "assistant",
    "system": "system",
    "systemmessage": "system",
    "systemmessagechunk": "system",
    "tool": "tool",
    "toolmessage": "tool",
    "user": "user",
}
_KEPT = ("audio", "name", "reasoning_content", "refusal")  # of OpenAI's own fields, where filled
_THOUGHTS = {"reasoning", "reasoning_content", "redacted_thinking", "thinking"}
_CALLS = {"function_call", "tool-call", "tool_call", "tool_use"}
_RESULTS = {
    "function_call_output",
    "tool-result",
    "tool_call_response",
    "tool_response",
    "tool_result",
}
_FINISHED = {
    "stop": "complete completed end end_turn eos eos_token finish finished stop_sequence "
    "stop_token",
    "length": "max_output_tokens max_tokens model_context_window_exceeded model_length",
    "tool_calls": "tool-calls tool_call tool_use",
    "content_filter": "blocklist content-filter content_filtered guardrail_intervened "
    "prohibited_content recitation refusal safety spii",
}
_FINISH_REASONS = {other: ours for ours, others in _FINISHED.items() for other in others.split()}


def finish_reason(value: Any) -> str | None:
    """How an answer ended, in OpenAI's words; None where the log does not say."""
    if not isinstance(value, str) or not value:
        return None
    return _FINISH_REASONS.get(value.lower(), value.lower() if value.isupper() else value)


def request_in(value: Any) -> JsonObject:
    """A request in any dialect, as the body of a chat completion. Raises Unusable without messages.

    `value`: the list of messages, or an object with `messages` or the like, `system`, `tools`.
    """
    value = parsed(value)
    body = value if isinstance(value, dict) else {"messages": value}
    held = next((body[n] for n in ("messages", "input", "contents") if body.get(n)), None)
    messages = chat_messages(held)
    system = next(
        (
            body[name]
            for name in ("system", "instructions", "system_instruction", "systemInstruction")
            if body.get(name)
        ),
        None,
    )
    if system is not None and (text := _system_text(system)):
        messages = [{"role": "system", "content": text}, *messages]
    config = as_object(body.get("inferenceConfig"))
    known = {
        **body,
        "max_tokens": body.get("max_tokens", config.get("maxTokens")),
        "temperature": body.get("temperature", config.get("temperature")),
        "top_p": body.get("top_p", config.get("topP")),
        "stop": body.get("stop") or body.get("stop_sequences") or config.get("stopSequences"),
    }
    tool_config = as_object(body.get("toolConfig"))
    tools = openai_tools(body.get("tools") or tool_config.get("tools"))
    choice = _tool_choice(body.get("tool_choice") or tool_config.get("toolChoice"))
    request = {**known, "messages": messages, "tools": tools, "tool_choice": choice}
    return {name: value for name, value in request.items() if value is not None}


def chat_messages(value: Any) -> Messages:
    """A list of messages in any dialect. Raises Unusable when it is none."""
    held = parsed(value)
    if isinstance(held, list) and len(held) == 1 and isinstance(held[0], list):
        held = held[0]  # LangChain's batch of one
    if not isinstance(held, list) or not held:
        raise Unusable("its input is no list of chat messages")
    messages: Messages = []
    for one in held:
        read = read_message(one)
        if not read:
            raise Unusable("not every message is an object with a role")
        messages += read
    return messages


def read_message(value: Any, *, role: str | None = None) -> Messages | None:
    """A message in any dialect; one with several tool results becomes several. None: it is none.

    `role`: that of a message which names none.
    """
    if not isinstance(value, dict):
        return None
    if is_plain(value):  # most are
        return [value]
    if "kwargs" in value and ("lc" in value or isinstance(value.get("id"), list)):
        name = str((as_list(value.get("id")) or [""])[-1])
        value = {**as_object(value["kwargs"]), "type": name}
    elif isinstance(value.get("data"), dict) and isinstance(value.get("type"), str):
        value = {**value["data"], "type": value["type"]}
    named = value.get("role") if isinstance(value.get("role"), str) else value.get("type")
    own = _ROLES.get(named.lower()) if isinstance(named, str) else None
    role = own or role
    if role is None or not {"content", "parts", "tool_calls", "function_call"} & value.keys():
        return None
    return _message(role, value)


def is_plain(value: JsonMapping) -> bool:
    """Whether a message is OpenAI's and has a text alone."""
    return (
        len(value) == 2
        and isinstance(value.get("content"), str)
        and value.get("role") in ("user", "assistant", "system")
    )


def _message(role: str, value: JsonMapping) -> Messages:
    content = value.get("content") if value.get("content") is not None else value.get("parts")
    extra = as_object(value.get("additional_kwargs"))
    message: JsonObject = {"role": role, "content": content}
    parts = _Parts()
    if isinstance(content, list) and not _is_openai_content(content):
        parts.read(content)
        message["content"] = parts.content
    calls = [*parts.calls]
    for source in (value, extra):
        if not calls:
            calls = [call for one in as_list(source.get("tool_calls")) if (call := tool_call(one))]
    if calls:
        message["tool_calls"] = calls
        message["content"] = message["content"] or None
    elif function := as_object(value.get("function_call") or extra.get("function_call")):
        message["function_call"] = function
    if role == "tool" and isinstance(value.get("tool_call_id"), str):
        message["tool_call_id"] = value["tool_call_id"]
    refusal = parts.refusal or value.get("refusal") or extra.get("refusal")
    kept = {name: value[name] for name in _KEPT if value.get(name)}
    message |= kept | ({"refusal": refusal} if isinstance(refusal, str) and refusal else {})
    if not parts.results:
        return [message]
    says = bool(message["content"] or calls)
    return [*parts.results, *([{**message, "role": "user"} if role == "tool" else message] * says)]


@dataclass(slots=True)
class _Parts:
    """What the parts of a message hold."""

    texts: list[str] = field(default_factory=list)
    others: list[Any] = field(default_factory=list)  # pictures, files, and what is not known
    calls: list[JsonObject] = field(default_factory=list)
    results: Messages = field(default_factory=list)  # of tools
    refusal: str = ""

    @property
    def content(self) -> Any:
        text = "\n".join(self.texts)
        return [{"type": "text", "text": text}, *self.others] if self.others else text

    def read(self, content: list[Any]) -> None:
        for part in content:
            if isinstance(part, str):
                self.texts.append(part)
            elif isinstance(part, dict):
                self._read_part(part)

    def _read_part(self, part: JsonObject) -> None:
        kind = part.get("type")
        text = part.get("text", part.get("content"))
        if kind in _THOUGHTS or part.get("thought") is True or "reasoningContent" in part:
            return
        if kind in ("text", "input_text", "output_text") or (kind is None and "text" in part):
            self.texts.append(text if isinstance(text, str) else "")
        elif kind == "refusal":
            self.refusal = str(part.get("refusal") or "")
        elif kind in _CALLS or {"toolUse", "functionCall"} & part.keys():
            inner = as_object(part.get("toolUse") or part.get("functionCall")) or part
            call = tool_call(inner)
            self.calls += [call] if call else []
        elif kind in _RESULTS or {"toolResult", "functionResponse"} & part.keys():
            inner = as_object(part.get("toolResult") or part.get("functionResponse")) or part
            self.results.append(_tool_result(inner))
        elif "cachePoint" not in part:
            self.others.append(part)


def tool_call(value: Any) -> JsonObject | None:
    """A tool call in any dialect, as OpenAI has it; None: it has no name."""
    if not isinstance(value, dict):
        return None
    function: JsonObject = as_object(value.get("function")) or value
    name = function.get("name") or value.get("toolName") or value.get("tool_name")
    if not isinstance(name, str) or not name:
        return None
    held: Any = next(
        (function[key] for key in ("arguments", "args", "input") if function.get(key) is not None),
        {},
    )
    arguments = held if isinstance(held, str) else to_json(held).decode()
    return {
        "id": _call_id(value) or "call_0",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def openai_tools(value: Any) -> list[JsonObject] | None:
    """The definitions of tools in any dialect, as OpenAI has them; None without any."""
    value = parsed(value)
    held = list(value.values()) if isinstance(value, dict) else as_list(value)
    tools = []
    for tool in held:
        if not isinstance(tool, dict):
            continue
        spec = as_object(tool.get("toolSpec")) or tool
        schema = next(
            (spec[n] for n in ("input_schema", "inputSchema", "parameters") if spec.get(n)), None
        )
        if isinstance(tool.get("function"), dict) or not isinstance(spec.get("name"), str):
            tools.append(tool)
            continue
        schema = as_object(schema)
        parameters = schema["json"] if isinstance(schema.get("json"), dict) else schema
        function = {"name": spec["name"], "parameters": parameters}
        if isinstance(spec.get("description"), str):
            function["description"] = spec["description"]
        tools.append({"type": "function", "function": function})
    return tools or None


def _tool_choice(value: Any) -> Any:
    if not isinstance(value, dict) or value.get("type") == "function":
        return value
    kind = value.get("type") or next(iter(value), None)
    if kind in ("auto", "none"):
        return kind
    if kind == "any":
        return "required"
    name = value.get("name") or as_object(value.get("tool")).get("name")
    return {"type": "function", "function": {"name": name}} if kind == "tool" and name else None


def _tool_result(part: JsonMapping) -> JsonObject:
    held = next(
        (
            part[n]
            for n in ("content", "response", "result", "output", "value")
            if part.get(n) is not None
        ),
        "",
    )
    if isinstance(held, list):
        texts = [
            one["text"] if isinstance(one, dict) and isinstance(one.get("text"), str) else one
            for one in held
        ]
        text = "\n".join(one if isinstance(one, str) else to_json(one).decode() for one in texts)
    else:
        text = held if isinstance(held, str) else to_json(held).decode()
    return {"role": "tool", "tool_call_id": _call_id(part) or "call_0", "content": text}


def _call_id(value: JsonMapping) -> str | None:
    names = ("call_id", "tool_use_id", "toolUseId", "toolCallId", "tool_call_id", "id")
    return next((value[n] for n in names if isinstance(value.get(n), str) and value[n]), None)


def _is_openai_content(content: list[Any]) -> bool:
    return all(
        isinstance(part, dict)
        and (
            (part.keys() == {"type", "text"} and part["type"] == "text")
            or part.get("type") in ("image_url", "input_audio", "file")
        )
        for part in content
    )


def _system_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    parts = _Parts()
    held = as_object(value).get("parts") if isinstance(value, dict) else value
    parts.read(as_list(held))
    return "\n".join(parts.texts)
