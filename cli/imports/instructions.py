"""Data sets for fine-tuning of other kinds than OpenAI's: ShareGPT's conversations, and Alpaca's.

ShareGPT: `conversations` of `from` and `value`. Alpaca: `instruction`, `input`, `output`; the
student's prompt is the instruction, and the input on the next line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cli.imports.logged import Format, LoggedCall, Unusable, finish_reason_of
from cli.imports.messages import openai_tools, read_message, tool_call
from cli.imports.values import as_list, as_object, as_text, parsed
from store.chat.shape import Messages
from store.jsontext import JsonMapping, JsonObject

_TURNS = {
    "observation": "tool",
    "tool_response": "tool",
    "prompter": "user",
    "chatgpt": "assistant",
}
_CALLS = ("function_call", "tool_call")


def is_sharegpt(row: JsonMapping) -> bool:
    """Whether a row is a conversation in turns."""
    turns = as_list(row.get("conversations") or row.get("conversation"))
    return bool(turns) and isinstance(turns[0], dict) and bool({"from", "role"} & turns[0].keys())


def sharegpt(row: JsonMapping) -> Iterator[LoggedCall | Unusable]:
    """The conversation's last answer. The answers before it are input, as in a request."""
    turns = as_list(row.get("conversations") or row.get("conversation"))
    messages: Messages = []
    if system := as_text(row.get("system")):
        messages.append({"role": "system", "content": system})
    for turn in turns:
        read = _turn(as_object(turn))
        if not read:
            yield Unusable("a turn of the conversation cannot be read")
            return
        messages += read
    yield _last_answer(row, messages)


def is_alpaca(row: JsonMapping) -> bool:
    """Whether a row is an instruction with its output."""
    return "instruction" in row and "output" in row


def alpaca(row: JsonMapping) -> Iterator[LoggedCall | Unusable]:
    """The output, as the answer to the instruction and its input."""
    instruction, output = as_text(row.get("instruction")), as_text(row.get("output"))
    if instruction is None or output is None:
        yield Unusable("it has no instruction, or no output")
        return
    messages: Messages = []
    if system := as_text(row.get("system")):
        messages.append({"role": "system", "content": system})
    for pair in as_list(row.get("history")):
        asked, answered = [*as_list(pair), None, None][:2]
        messages.append({"role": "user", "content": str(asked or "")})
        messages.append({"role": "assistant", "content": str(answered or "")})
    given = as_text(row.get("input"))
    messages.append(
        {"role": "user", "content": f"{instruction}\n{given}" if given else instruction}
    )
    yield _last_answer(row, [*messages, {"role": "assistant", "content": output}])


def _turn(turn: JsonMapping) -> Messages | None:
    named = turn.get("from", turn.get("role"))
    content = turn.get("value", turn.get("content"))
    if not isinstance(named, str):
        return None
    if named in _CALLS:
        held = parsed(content)
        calls = [tool_call(one) for one in (held if isinstance(held, list) else [held])]
        if not calls or None in calls:
            return None
        return [{"role": "assistant", "content": None, "tool_calls": calls}]
    role = _TURNS.get(named.lower(), named)
    message: JsonObject = {"role": role, "content": content}
    if role == "tool":
        message["tool_call_id"] = "call_0"  # the set does not say; calls above have this one
    if turn.get("tool_calls"):
        message["tool_calls"] = turn["tool_calls"]
    return read_message(message) if isinstance(content, str | list) else None


def _last_answer(row: JsonMapping, messages: Messages) -> LoggedCall | Unusable:
    if not messages or messages[-1]["role"] != "assistant":
        return Unusable("it does not end with the assistant's message")
    if len(messages) == 1:
        return Unusable("there is nothing before the assistant's message")
    answer = messages[-1]
    tools: Any = openai_tools(row.get("tools"))
    return LoggedCall(
        request={"messages": messages[:-1], "tools": tools, "model": row.get("model")},
        answers=[answer],
        finish_reasons=[finish_reason_of(answer)],
        response_model=as_text(row.get("model")),
        task_names=[as_object(row.get("metadata")).get("task")],
    )


SHAREGPT = Format("sharegpt", is_sharegpt, sharegpt)
ALPACA = Format("alpaca", is_alpaca, alpaca)
