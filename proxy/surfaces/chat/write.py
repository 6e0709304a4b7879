"""A student's answer in the form that OpenAI gives its own: JSON, or server-sent events."""

from __future__ import annotations

import secrets
import string
import time

import orjson

from proxy.surfaces.completion import Completion
from store.chat.student_wire import StudentAnswer
from store.jsontext import JsonObject

_LETTERS = string.ascii_letters + string.digits
_DONE = b"data: [DONE]\n\n"


class StudentCompletion:
    """One answer, to be sent in either form."""

    def __init__(
        self,
        answer: StudentAnswer,
        *,
        trace_id: str,
        student_id: str,
        model: str,
        include_usage: bool = False,
    ) -> None:
        """`answer`: as store.chat.student_wire.reply_of gives it.

        `include_usage`: what the client's `stream_options` say.
        """
        self._text = answer.text
        self._calls: list[JsonObject] = [
            {
                "id": call_id(),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments_json},
            }
            for call in answer.calls
        ]
        self._include_usage = include_usage
        self._finish_reason = answer.finish_reason or "stop"
        self._usage = {
            "prompt_tokens": answer.input_tokens,
            "completion_tokens": answer.output_tokens,
            "total_tokens": answer.input_tokens + answer.output_tokens,
        }
        self._head = {
            "id": f"chatcmpl-{trace_id.replace('-', '')}",
            "created": int(time.time()),
            "model": model,  # as the client named it
            "system_fingerprint": f"fp_{student_id.replace('-', '')[-12:]}",
        }

    def whole(self) -> bytes:
        """The `chat.completion` object."""
        choice = {
            "index": 0,
            "message": self._message(),
            "logprobs": None,
            "finish_reason": self._finish_reason,
        }
        return orjson.dumps(
            {
                **self._head,
                "object": "chat.completion",
                "choices": [choice],
                "usage": self._usage,
            }
        )

    def events(self) -> bytes:
        """The stream of `chat.completion.chunk` objects with its end.

        With usage, it comes in a last chunk without choices, and is null in all others.
        """
        usage: JsonObject = {"usage": None} if self._include_usage else {}
        head = {**self._head, "object": "chat.completion.chunk"}
        deltas = [*((delta, None) for delta in self._deltas()), ({}, self._finish_reason)]
        chunks = [
            {
                **head,
                "choices": [
                    {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
                ],
                **usage,
            }
            for delta, finish in deltas
        ]
        if self._include_usage:
            chunks.append({**head, "choices": [], "usage": self._usage})
        return b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks) + _DONE

    def completion(self) -> Completion:
        """The same answer for the trace."""
        return Completion(
            response_id=self._head["id"],  # type: ignore[arg-type]
            model=str(self._head["model"]),
            messages=[self._message()],
            finish_reasons=[self._finish_reason],
            usage=self._usage,
        )

    def _message(self) -> JsonObject:
        calls = {"content": None, "tool_calls": self._calls} if self._calls else {}
        return {
            "role": "assistant",
            "content": self._text,
            **calls,
            "refusal": None,
            "annotations": [],
        }

    def _deltas(self) -> list[JsonObject]:
        """What the chunks add, one after the other.

        A call begins with its id and its name, as OpenAI's do, and a single one with the message.
        """
        opening = {"role": "assistant", "content": None, "refusal": None}
        if not self._calls:
            return [opening | {"content": ""}, {"content": self._text}]
        found: list[JsonObject] = []
        for index, call in enumerate(self._calls):
            function = call["function"]
            begun = {"index": index, **call, "function": {**function, "arguments": ""}}
            said = {"index": index, "function": {"arguments": function["arguments"]}}
            found += [{"tool_calls": [begun]}, {"tool_calls": [said]}]
        if len(self._calls) == 1:
            return [opening | found[0], found[1]]
        return [opening, *found]


def call_id() -> str:
    """An id for a tool call, in the form of OpenAI's: `call_` and 24 letters and digits."""
    return "call_" + "".join(secrets.choice(_LETTERS) for _ in range(24))
