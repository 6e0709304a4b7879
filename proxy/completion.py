"""A student's answer in the form that OpenAI gives its own: JSON, or server-sent events."""

from __future__ import annotations

import time
from typing import Any

import orjson

from proxy.assemble import Completion
from store.student_wire import StudentAnswer

_DONE = b"data: [DONE]\n\n"


class StudentCompletion:
    """One answer, to be sent in either form."""

    def __init__(
        self, answer: StudentAnswer, *, trace_id: str, student_id: str, model: str
    ) -> None:
        self._text = answer.text
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

    def events(self, *, include_usage: bool) -> bytes:
        """The stream of `chat.completion.chunk` objects with its end.

        With usage, it comes in a last chunk without choices, and is null in all others.
        """
        usage: dict[str, Any] = {"usage": None} if include_usage else {}
        head = {**self._head, "object": "chat.completion.chunk"}
        deltas: list[tuple[dict[str, Any], str | None]] = [
            ({"role": "assistant", "content": "", "refusal": None}, None),
            ({"content": self._text}, None),
            ({}, self._finish_reason),
        ]
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
        if include_usage:
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

    def _message(self) -> dict[str, Any]:
        return {
            "role": "assistant",
            "content": self._text,
            "refusal": None,
            "annotations": [],
        }
