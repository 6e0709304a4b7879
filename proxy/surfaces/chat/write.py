"""Writes a student's answer as OpenAI would: as JSON, or as server-sent events."""

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
    """One answer, in either form."""

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

        `include_usage`: of the client's `stream_options`.
        """
        self._text = answer.text
        self._calls: list[JsonObject] = [
            {
                "id": call.id or call_id(),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments_json},
            }
            for call in answer.calls
        ]
        self._nothing: JsonObject = {
            name: [] if name == "annotations" else None for name in answer.fields
        }
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

        The usage, if wanted, is in a last chunk without choices, and null in all others.
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
            **self._nothing,  # another field, and a strict teacher refuses the next turn
        }

    def _deltas(self) -> list[JsonObject]:
        """The deltas of the chunks, in order.

        A call begins with its id and name, as OpenAI's do; a single call begins with the message.
        """
        refusal = {"refusal": None} if "refusal" in self._nothing else {}
        opening: JsonObject = {"role": "assistant", "content": None, **refusal}
        if not self._calls:
            return [opening | {"content": ""}, {"content": self._text}]
        deltas: list[JsonObject] = []
        for index, call in enumerate(self._calls):
            function = call["function"]
            head = {"index": index, **call, "function": {**function, "arguments": ""}}
            arguments = {"index": index, "function": {"arguments": function["arguments"]}}
            deltas += [{"tool_calls": [head]}, {"tool_calls": [arguments]}]
        if len(self._calls) == 1:
            return [opening | deltas[0], deltas[1]]
        return [opening, *deltas]


def call_id() -> str:
    """An id for a tool call, in the form of OpenAI's: `call_` and 24 letters and digits."""
    return "call_" + "".join(secrets.choice(_LETTERS) for _ in range(24))
