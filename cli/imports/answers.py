"""The answer in an output, whatever a library has put around it.

Known wrappers are taken off: completions and responses of the providers' APIs, LangChain's
generations, the AI SDK's results. What is left is a message, a text, or JSON that the model wrote.
An object that looks like a wrapper which is not known is no answer: students would learn to write
the wrapper.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from cli.imports.logged import Unusable, finish_reason_of
from cli.imports.messages import finish_reason, is_plain, read_message, tool_call
from cli.imports.values import as_count, as_list, as_object, as_text, parsed
from store.chat.shape import text_of
from store.jsontext import JsonMapping, JsonObject, to_json

NO_OUTPUT = "it has no output"
UNKNOWN = "its answer is in a wrapper that is not known"
FAILED = "the call failed"
_MAX_WRAPPERS = 6  # around each other
# Keys that stand beside or around a text more often than in a model's own JSON.
_WRAPPING = {
    "additional_kwargs", "answer", "body", "candidates", "choices", "completion", "completions",
    "content", "contents", "data", "error", "finishReason", "finish_reason", "function_call",
    "generated_text", "generation", "generations", "input", "kwargs", "latency", "latency_ms", "lc",
    "message", "messages", "metadata", "object", "output", "output_text", "outputs", "parts",
    "prompt", "raw", "request_id", "response", "response_metadata", "responses", "result",
    "return_value", "role", "stopReason", "stop_reason", "text", "toolCalls", "tool_calls",
    "trace_id", "usage", "usageMetadata", "usage_metadata",
}  # fmt: skip
_CERTAIN = {
    "additional_kwargs", "candidates", "choices", "finishReason", "finish_reason", "generations",
    "response_metadata", "stopReason", "stop_reason", "streamed_data", "usage_metadata",
}  # fmt: skip
_MESSAGE = {
    "additional_kwargs", "annotations", "audio", "content", "content_blocks", "example",
    "function_call", "id", "images", "invalid_tool_calls", "name", "parts",
    "provider_specific_fields", "reasoning", "reasoning_content", "reasoning_details", "refusal",
    "response_metadata", "role", "thinking_blocks", "tool_calls", "type", "usage_metadata",
}  # fmt: skip
_AI_SDK = {
    "experimental_providerMetadata", "files", "finishReason", "object", "providerMetadata",
    "reasoning", "reasoningText", "request", "response", "responseMessages", "sources", "steps",
    "text", "toolCalls", "toolResults", "usage", "warnings",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoggedAnswer:
    """The answers in an output, and what stood around them."""

    messages: list[JsonObject]
    finish_reasons: list[str] = field(default_factory=list)
    response_id: str | None = None
    response_model: str | None = None
    usage: JsonMapping = field(default_factory=dict)

    def fields(self) -> JsonObject:
        """As fields of a LoggedCall."""
        usage = self.usage
        details = as_object(usage.get("prompt_tokens_details") or usage.get("input_tokens_details"))
        written = as_object(
            usage.get("completion_tokens_details") or usage.get("output_tokens_details")
        )
        return {
            "answers": self.messages,
            "finish_reasons": self.finish_reasons
            or [finish_reason_of(message) for message in self.messages],
            "response_id": self.response_id,
            "response_model": self.response_model,
            "input_tokens": _count(usage, "prompt_tokens", "input_tokens", "inputTokens"),
            "output_tokens": _count(usage, "completion_tokens", "output_tokens", "outputTokens"),
            "cached_tokens": as_count(details.get("cached_tokens"))
            or _count(usage, "cache_read_input_tokens", "cacheReadInputTokens"),
            "reasoning_tokens": as_count(written.get("reasoning_tokens")),
        }


def answer_in(output: Any, request: JsonMapping) -> LoggedAnswer:
    """The answer in an output. `request`: its body, which tells whether it asked for JSON.

    Raises Unusable where there is none, or what is there is a wrapper that is not known.
    """
    value = parsed(output)
    if value in (None, "", [], {}):
        raise Unusable(NO_OUTPUT)
    if isinstance(value, str):
        return _written(value)
    if isinstance(value, dict) and is_plain(value) and value["role"] == "assistant":
        return LoggedAnswer([value], ["stop"])
    answer = unwrapped(value)
    if answer is not None:
        return answer
    if isinstance(value, dict | list) and not _is_json_answer(value, request):
        raise Unusable(UNKNOWN)
    return _written(output if isinstance(output, str) else to_json(value).decode())


def unwrapped(value: Any, depth: int = 0) -> LoggedAnswer | None:
    """The answer in the wrappers that are known; None where there is none of them.

    Raises Unusable for a call that failed, or for a message of somebody else.
    """
    if depth > _MAX_WRAPPERS:
        return None
    if isinstance(value, list):
        return _in_list(value, depth)
    if isinstance(value, dict):
        for known in _WRAPPERS:
            if (answer := known(value, depth)) is not None:
                return answer
    return None


def _in_list(value: list[Any], depth: int) -> LoggedAnswer | None:
    if not value or not all(isinstance(one, dict | list) for one in value):
        return None
    last = value[-1]
    if isinstance(last, dict) and (message := _message(last)) is not None:
        return _of_message(message, last)
    if isinstance(last, dict) and isinstance(last.get("message"), dict) and "index" in last:
        return _completion({"choices": value}, depth)
    if len(value) == 1 and (answer := unwrapped(last, depth + 1)) is not None:
        return answer
    kinds = {"text", "output_text", "tool_use", "thinking", "redacted_thinking", "reasoning"}
    if all(isinstance(one, dict) and one.get("type") in kinds for one in value):
        read = read_message({"role": "assistant", "content": value})
        return _of_message(_plain(read[-1]), {}) if read else None
    return _responses({"object": "response", "output": value}, depth)


def _completion(value: JsonMapping, depth: int) -> LoggedAnswer | None:
    """OpenAI's chat completions, and those of the many that speak as it does."""
    if not isinstance(value.get("choices"), list):
        return None
    choices = [choice for choice in value["choices"] if isinstance(choice, dict)]
    messages = []
    for choice in choices:
        held = choice.get("message", choice.get("delta"))
        if held is None and isinstance(choice.get("text"), str):
            held = {"content": choice["text"]}
        read = read_message(held, role="assistant") or [{"role": "assistant", "content": None}]
        messages.append(_plain(read[-1]))
    reasons = [
        finish_reason(choice.get("finish_reason", choice.get("finishReason")))
        or finish_reason_of(message)
        for choice, message in zip(choices, messages, strict=True)
    ]
    return _around(value, messages, reasons)


def _generations(value: JsonMapping, depth: int) -> LoggedAnswer | None:
    """LangChain's results: lists of lists of generations."""
    held = as_list(value.get("generations"))
    while len(held) >= 1 and isinstance(held[0], list):
        held = held[0]
    if not held or not isinstance(held[0], dict):
        return None
    first = held[0]
    inner = first.get("message")
    message = _message(inner) if isinstance(inner, dict) else None
    if message is None and isinstance(first.get("text"), str):
        message = {"role": "assistant", "content": first["text"]}
    if message is None:
        return None
    outer = as_object(value.get("llm_output"))
    usage = {"usage": outer.get("token_usage") or outer.get("usage")}
    source = {**outer, **usage, **(_langchain(inner) if isinstance(inner, dict) else {})}
    info = as_object(first.get("generation_info") or first.get("generationInfo"))
    reason = finish_reason(info.get("finish_reason", info.get("finishReason")))
    return _of_message(message, source, reason)


def _anthropic(value: JsonMapping, depth: int) -> LoggedAnswer | None:
    if not isinstance(value.get("content"), list) or value.get("role") != "assistant":
        return None
    if not {"stop_reason", "usage"} & value.keys():
        return None
    read = read_message(value)
    reason = finish_reason(value.get("stop_reason"))
    return _of_message(_plain(read[-1]), value, reason) if read else None


def _gemini(value: JsonMapping, depth: int) -> LoggedAnswer | None:
    held = [one for one in as_list(value.get("candidates")) if isinstance(one, dict)]
    if not held:
        return None
    read = read_message(as_object(held[0].get("content")), role="assistant")
    usage = as_object(value.get("usageMetadata"))
    counts = {
        "input_tokens": usage.get("promptTokenCount"),
        "output_tokens": usage.get("candidatesTokenCount"),
    }
    source = {"model": value.get("modelVersion"), "usage": counts}
    reason = finish_reason(held[0].get("finishReason"))
    return _of_message(_plain(read[-1]), source, reason) if read else None


def _responses(value: JsonMapping, depth: int) -> LoggedAnswer | None:
    """The Responses API."""
    held = value.get("output")
    if value.get("object") != "response" or not isinstance(held, list):
        return None
    message: JsonObject = {"role": "assistant", "content": None}
    calls = []
    for item in held:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "function_call":
            calls += [call] if (call := tool_call(item)) else []
        elif kind == "message" and (read := read_message({**item, "role": "assistant"})):
            message = {**read[-1]}
        elif kind != "reasoning":
            return None
    if calls:
        message["tool_calls"] = calls
    ended = "length" if value.get("status") == "incomplete" else None
    return _of_message(_plain(message), value, ended)


def _converse(value: JsonMapping, depth: int) -> LoggedAnswer | None:
    """Bedrock's Converse API."""
    held = as_object(value.get("output")).get("message")
    if not isinstance(held, dict) or (message := _message(held)) is None:
        return None
    return _of_message(message, value, finish_reason(value.get("stopReason")))


def _bare_message(value: JsonMapping, depth: int) -> LoggedAnswer | None:
    message = _message(value)
    return None if message is None else _of_message(message, value)


def _beside_message(value: JsonMapping, depth: int) -> LoggedAnswer | None:
    """A message under `message`, as Ollama has it."""
    held = value.get("message")
    if not isinstance(held, dict) or (message := _message(held)) is None:
        return None
    reason = finish_reason(value.get("done_reason") or value.get("finish_reason"))
    return _of_message(message, value, reason)


def _ai_sdk(value: JsonMapping, depth: int) -> LoggedAnswer | None:
    """What the AI SDK's generateText returns."""
    if not isinstance(value.get("text"), str) or not value.keys() <= _AI_SDK:
        return None
    message: JsonObject = {"role": "assistant", "content": value["text"]}
    calls = [call for one in as_list(value.get("toolCalls")) if (call := tool_call(one))]
    if calls:
        message |= {"tool_calls": calls, "content": value["text"] or None}
    return _of_message(message, value, finish_reason(value.get("finishReason")))


def _sole(value: JsonMapping, depth: int) -> LoggedAnswer | None:
    """An answer under one name and nothing beside it, or an error."""
    if value.keys() == {"error"} or (value.get("type") == "error" and "error" in value):
        raise Unusable(FAILED)
    if len(value) != 1 or not {"messages", "output", "response"} & value.keys():
        return None
    held = parsed(next(iter(value.values())))
    return unwrapped(held, depth + 1) if isinstance(held, list | dict) else None


_WRAPPERS = (
    _completion,
    _generations,
    _anthropic,
    _gemini,
    _responses,
    _converse,
    _bare_message,
    _beside_message,
    _ai_sdk,
    _sole,
)


def _message(value: JsonMapping) -> JsonObject | None:
    """The value as the assistant's message; None when it is none.

    Raises Unusable for a message of somebody else.
    """
    named = value.get("role", value.get("type"))
    is_serialized = "kwargs" in value and "lc" in value
    is_langchain = isinstance(value.get("data"), dict) and isinstance(value.get("type"), str)
    if not isinstance(named, str) and not value.keys() <= _MESSAGE:
        return None
    if "role" in value and isinstance(value.get("role"), str):
        read = read_message(value)
    elif is_serialized or is_langchain or value.keys() <= _MESSAGE:
        read = read_message(value, role=None if "type" in value else "assistant")
    else:
        return None
    if not read:
        return None
    if read[-1]["role"] != "assistant":
        raise Unusable(NO_OUTPUT)
    return _plain(read[-1])


def _plain(message: JsonObject) -> JsonObject:
    """The answer with its content as one text where it is only text."""
    content = message.get("content")
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" for part in content
    ):
        return {**message, "content": text_of(content)}
    return message


def _of_message(
    message: JsonObject, source: JsonMapping, reason: str | None = None
) -> LoggedAnswer:
    inner = _langchain(source)
    about = as_object(inner.get("response_metadata"))
    reason = reason or finish_reason(
        next(
            (
                place[name]
                for place in (inner, about)
                for name in ("finish_reason", "stop_reason", "stopReason", "finishReason")
                if place.get(name)
            ),
            None,
        )
    )
    reason = finish_reason_of(message) if reason in (None, "stop") else reason
    usage = inner.get("usage_metadata") or inner.get("usage") or about.get("token_usage")
    model = inner.get("model") or about.get("model_name") or inner.get("model_name")
    source = {"id": inner.get("id"), "model": model, "usage": usage}
    return _around(source, [message], [reason or "stop"])


def _langchain(value: JsonMapping) -> JsonMapping:
    """LangChain's message without what serialization has put around it."""
    for name in ("kwargs", "data"):
        if isinstance(value.get(name), dict) and ({"lc", "type"} & value.keys()):
            inner: JsonMapping = value[name]
            return inner
    return value


def _around(value: JsonMapping, messages: list[JsonObject], reasons: list[str]) -> LoggedAnswer:
    return LoggedAnswer(
        messages,
        reasons,
        as_text(value.get("id")),
        as_text(value.get("model")),
        as_object(value.get("usage")),
    )


def _written(text: str) -> LoggedAnswer:
    return LoggedAnswer([{"role": "assistant", "content": text}], ["stop"])


# ---- a model's own JSON ------------------------------------------------------------------------


def _is_json_answer(value: Any, request: JsonMapping) -> bool:
    """Whether JSON is what a model wrote: it has no key of a wrapper, or was asked for with it."""
    if _holds_wrapper(value):
        return False
    if not isinstance(value, dict) or not _WRAPPING & value.keys():
        return True
    return _asked_for(value.keys(), request)


def _asked_for(keys: Any, request: JsonMapping) -> bool:
    """Whether a request names these keys, in its schema or in its prompt."""
    format_ = as_object(request.get("response_format"))
    schema = as_object(as_object(format_.get("json_schema")).get("schema"))
    if keys <= as_object(schema.get("properties")).keys():
        return True
    texts = [
        text_of(message.get("content"))
        for message in as_list(request.get("messages"))
        if isinstance(message, dict)
    ]
    prompt = "\n".join(texts)
    if format_ or re.search(r"\bjson\b", prompt, re.IGNORECASE):
        return all(re.search(rf"\b{re.escape(key)}\b", prompt) for key in keys)
    return all(
        re.search(rf"[\"'`]{re.escape(key)}[\"'`]|\b{re.escape(key)}\s*:", prompt) for key in keys
    )


def _holds_wrapper(value: Any, depth: int = 0) -> bool:
    """Whether a message or a provider's answer is somewhere near the top."""
    if isinstance(value, list):
        return bool(value) and _holds_wrapper(value[0], depth)
    if not isinstance(value, dict) or depth > 2:
        return False
    if _CERTAIN & value.keys() or (value.get("role") in ("assistant", "ai", "model")):
        return True
    return any(_holds_wrapper(inner, depth + 1) for inner in value.values())


def _count(usage: JsonMapping, *names: str) -> int | None:
    return next((as_count(usage[n]) for n in names if usage.get(n) is not None), None)
