"""OpenAI's fine-tuning files and its stored chat completions, row by row.

https://platform.openai.com/docs/guides/supervised-fine-tuning and
https://platform.openai.com/docs/api-reference/chat/list
"""

from __future__ import annotations

from collections.abc import Iterator

from cli.imports.logged import Format, LoggedCall, Unusable, finish_reason_of
from cli.imports.messages import finish_reason
from cli.imports.values import as_count, as_list, as_object, as_text, logged_time, parsed
from store.jsontext import JsonMapping, JsonObject


def is_finetuning(row: JsonMapping) -> bool:
    """Whether a row is a fine-tuning example in the chat format."""
    others = {"choices", "response", "input", "output", "request_id", "trace_id", "traceId"}
    return isinstance(row.get("messages"), list) and not others & row.keys()


def finetuning(row: JsonMapping) -> Iterator[LoggedCall | Unusable]:
    """The conversation's last answer. The answers before it are input, as in a request."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        yield Unusable("it has no list of chat messages")
        return
    answer = messages[-1]
    if not isinstance(answer, dict) or answer.get("role") != "assistant":
        yield Unusable("it does not end with the assistant's message")
    elif len(messages) == 1:
        yield Unusable("there is nothing before the assistant's message")
    elif 0 in (answer.get("weight"), row.get("weight")):
        yield Unusable("its weight is 0: not to be learned from")
    else:
        yield LoggedCall(
            request={**row, "messages": messages[:-1]},
            answers=[answer],
            finish_reasons=[finish_reason_of(answer)],
            response_model=as_text(row.get("model")),
            task_names=[as_object(row.get("metadata")).get("task")],
        )


def is_stored(row: JsonMapping) -> bool:
    """Whether a row is a chat completion object."""
    return row.get("object") == "chat.completion" or (
        isinstance(row.get("choices"), list) and "messages" in row
    )


def stored(row: JsonMapping) -> Iterator[LoggedCall | Unusable]:
    """A stored chat completion with its messages: a list, or the API's list object around it."""
    held = next((row[n] for n in ("messages", "input_messages", "input") if row.get(n)), None)
    messages = parsed(held)
    if isinstance(messages, dict):
        messages = messages.get("data")
    if not isinstance(messages, list) or not messages:
        yield Unusable("it has no messages: the API gives them at /chat/completions/{id}/messages")
        return
    metadata = as_object(row.get("metadata"))
    user = as_text(row.get("input_user")) or as_text(row.get("user"))
    completion = answers_of(row)
    yield LoggedCall(
        request={**row, "messages": messages, "user": user},
        **completion,
        call_id=as_text(row.get("id")) or "",
        start_time=logged_time(row.get("created")),
        end_user=user,
        task_names=[metadata.get("task")],
    )


def answers_of(completion: JsonMapping) -> JsonObject:
    """A chat completion object as fields of a LoggedCall."""
    choices = [c for c in as_list(completion.get("choices")) if isinstance(c, dict)]
    messages = [as_object(choice.get("message")) for choice in choices]
    reasons = [
        finish_reason(c.get("finish_reason")) or finish_reason_of(m)
        for c, m in zip(choices, messages, strict=True)
    ]
    usage = as_object(completion.get("usage"))
    cached = as_object(usage.get("prompt_tokens_details")).get("cached_tokens")
    reasoning = as_object(usage.get("completion_tokens_details")).get("reasoning_tokens")
    return {
        "answers": messages,
        "finish_reasons": reasons,
        "response_id": as_text(completion.get("id")),
        "response_model": as_text(completion.get("model")),
        "input_tokens": as_count(usage.get("prompt_tokens")),
        "output_tokens": as_count(usage.get("completion_tokens")),
        "cached_tokens": as_count(cached),
        "reasoning_tokens": as_count(reasoning),
    }


FINETUNING = Format("openai-finetuning", is_finetuning, finetuning)
STORED = Format("openai-stored", is_stored, stored)
