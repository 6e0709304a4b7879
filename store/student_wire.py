"""How a student is asked and how its answer is read: one way for proxy and evaluation alike.

`mlx_lm.server` loads any path that a request names in `model`, `adapters` or `draft_model`, so a
body for it is built from an allowlist, never copied from a client's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from store.models import OutputKind, Reason
from store.shape import Messages, text_of

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class StudentAnswer:
    """A student's whole answer."""

    text: str
    confidence: float | None  # lowest token log-probability, the end token included
    finish_reason: str
    input_tokens: int
    output_tokens: int


def student_messages(messages: Messages) -> list[dict[str, str]]:
    """The messages as a student gets them, in training, evaluation and service alike.

    Text alone, and `developer` becomes `system`, as chat templates know no other name.
    """
    return [
        {
            "role": "system" if m["role"] == "developer" else m["role"],
            "content": text_of(m.get("content")),
        }
        for m in messages
    ]


def student_body(messages: Messages, *, max_tokens: int, stop: list[str] | None = None) -> bytes:
    """The request for `mlx_lm.server`: greedy, not streamed, with log-probabilities.

    Greedy, because the certificate was earned so; not streamed, because streamed chunks carry no
    log-probabilities.
    """
    body: dict[str, Any] = {
        "model": "default_model",
        "messages": student_messages(messages),
        "max_tokens": max_tokens,
        "temperature": 0.0,
        "logprobs": True,
        "stream": False,
    }
    if stop:
        body["stop"] = stop
    return orjson.dumps(body)


def read_student_answer(raw: bytes) -> StudentAnswer:
    """Reads `mlx_lm.server`'s answer. Raises ValueError on anything that is not one."""
    try:
        payload = orjson.loads(raw)
        choice = payload["choices"][0]
        text = choice["message"].get("content") or ""
        tokens = (choice.get("logprobs") or {}).get("content") or []
        logprobs = [float(t["logprob"]) for t in tokens if "logprob" in t]
        usage = payload.get("usage") or {}
        return StudentAnswer(
            text=text,
            confidence=min(logprobs) if logprobs else None,
            finish_reason=str(choice.get("finish_reason") or ""),
            input_tokens=int(usage.get("prompt_tokens") or 0),
            output_tokens=int(usage.get("completion_tokens") or 0),
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"not a chat completion: {type(error).__name__}") from None


def fault_of(answer: StudentAnswer, *, cutoff: float | None, output: OutputKind) -> Reason | None:
    """Why this answer may not be served, or None when it may."""
    if answer.finish_reason == "length":
        return Reason.STUDENT_CUT_OFF
    if not answer.text or (output == "json" and not _is_json_container(answer.text)):
        return Reason.STUDENT_MALFORMED
    if cutoff is not None and (answer.confidence is None or answer.confidence < cutoff):
        return Reason.STUDENT_UNSURE
    return None


def _is_json_container(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict | list)
    except orjson.JSONDecodeError:
        return False
