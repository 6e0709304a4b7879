"""What a response of the teacher says, as a chat completion for the log.

One response is one choice: the texts of its messages are the content, its calls the tool calls, the
summaries of its reasoning the reasoning content. Items of other kinds stay in `items`.
"""

from __future__ import annotations

from typing import Any

import orjson

from proxy.surfaces.assemble import Completion, error_type_of

# Status → the finish reasons that say the same, where a response is not `completed`.
_INCOMPLETE = {"max_output_tokens": "length", "content_filter": "content_filter"}


def read_response(raw: bytes) -> Completion:
    """The response in a plain JSON answer; an empty completion when it is none."""
    try:
        return completion_of(orjson.loads(raw))
    except orjson.JSONDecodeError:
        return Completion()


def completion_of(response: Any) -> Completion:
    """A `response` object, or an error, as a completion. Never raises."""
    if not isinstance(response, dict):
        return Completion()
    completion = Completion(
        response_id=_text(response.get("id")),
        model=_text(response.get("model")),
        error_type=error_type_of(response),
        usage=_usage(response.get("usage")),
    )
    output = response.get("output")
    if isinstance(output, list) and output:
        message = _message([item for item in output if isinstance(item, dict)])
        completion.messages = [message]
        finish = _finish_reason(response, bool(message.get("tool_calls")))
        completion.finish_reasons = [finish] if finish else []
    return completion


def _finish_reason(response: dict[str, Any], calls: bool) -> str | None:
    """None: it is not finished, or it failed."""
    status = response.get("status", "completed")
    if status == "completed":
        return "tool_calls" if calls else "stop"
    if status == "incomplete":
        details = response.get("incomplete_details")
        reason = str((details.get("reason") if isinstance(details, dict) else None) or status)
        return _INCOMPLETE.get(reason, reason)
    return None


def _message(output: list[dict[str, Any]]) -> dict[str, Any]:
    texts: dict[str, list[str]] = {}
    calls: list[dict[str, Any]] = []
    annotations: list[Any] = []
    others: list[dict[str, Any]] = []
    for item in output:
        kind = item.get("type")
        if kind == "message":
            for part in _parts(item.get("content")):
                _add_part(part, texts)
                annotations += _parts(part.get("annotations"))
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            calls.append({"id": item.get("call_id"), "type": "function", "function": function})
        elif kind == "custom_tool_call":
            custom = {"name": item.get("name"), "input": item.get("input")}
            calls.append({"id": item.get("call_id"), "type": "custom", "custom": custom})
        elif kind == "reasoning":
            for part in _parts(item.get("summary")) + _parts(item.get("content")):
                _put(texts, "reasoning_content", part.get("text"))
        else:
            others.append(item)
    message: dict[str, Any] = {"role": "assistant", "content": None}
    message |= {name: _JOINED_WITH.get(name, "").join(parts) for name, parts in texts.items()}
    more = {"tool_calls": calls, "annotations": annotations, "items": others}
    return message | {name: value for name, value in more.items() if value}


_JOINED_WITH = {"reasoning_content": "\n\n"}


def _add_part(part: dict[str, Any], texts: dict[str, list[str]]) -> None:
    if part.get("type") == "refusal":
        _put(texts, "refusal", part.get("refusal"))
    else:
        _put(texts, "content", part.get("text"))


def _put(texts: dict[str, list[str]], name: str, text: Any) -> None:
    if isinstance(text, str):
        texts.setdefault(name, []).append(text)


def _parts(value: Any) -> list[dict[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _usage(usage: Any) -> dict[str, Any]:
    """The counts under the names that chat completions have for them."""
    if not isinstance(usage, dict):
        return {}
    return {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "total_tokens": usage.get("total_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
        "completion_tokens_details": usage.get("output_tokens_details"),
    }


def _text(value: Any) -> str | None:
    return str(value) if value else None
