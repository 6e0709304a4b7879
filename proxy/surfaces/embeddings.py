"""The surface of embeddings: `POST /v1/embeddings`. Their vectors are not kept."""

from __future__ import annotations

from typing import Any, ClassVar

import orjson

from proxy.surfaces.completion import BOM, UNREAD, Completion, take_head
from proxy.surfaces.prompts import PromptSurface
from store.records import Api

_UNREADABLE = (orjson.JSONDecodeError, AttributeError, TypeError)


class Embeddings(PromptSurface):
    """Texts, and a vector for each."""

    api: ClassVar[Api] = "embeddings"
    operation_name = "embeddings"
    path = "/v1/embeddings"
    prompt = "input"

    def read_answer(self, raw: bytes) -> Completion:
        """The answer's model and usage."""
        completion = Completion()
        try:
            payload = without_vectors(raw.removeprefix(BOM))
            take_head(completion, payload)
        except _UNREADABLE:
            completion.error_type = completion.error_type or UNREAD
        return completion


def without_vectors(raw: bytes) -> Any:
    """An answer's JSON without everything between its first `[` and its last `]`.

    A megabyte of numbers takes 3 ms to parse, this takes 3 µs. The two ends are parsed as objects,
    which works only if both cuts are in values of the outermost object. If it does not, or the ends
    hold no usage, the whole answer is parsed.
    """
    begin, end = raw.find(b"["), raw.rfind(b"]")
    if 0 <= begin < end:
        try:
            payload = orjson.loads(raw[:begin] + b"null}")
            payload |= orjson.loads(b'{"":null' + raw[end + 1 :])
        except (orjson.JSONDecodeError, TypeError):
            payload = {}
        # else they are missing, or one of them was cut
        if isinstance(payload.get("usage"), dict) and isinstance(payload.get("model"), str):
            return payload
    return orjson.loads(raw)
