"""Reads a teacher's chat completion: a plain answer, or a stream while it goes by."""

from __future__ import annotations

import orjson

from proxy.surfaces.chat.choice import Choice
from proxy.surfaces.completion import BOM, UNREAD, Completion, error_type_of, take_head
from proxy.surfaces.sse import EventReader

_DONE = b"[DONE]"
_WITHOUT_MEANING = (_DONE, b"")  # data of an event that is no chunk
_MAX_DONE_LINE = 32
_CHOICE = 16_000  # counted for a choice: there are few


def read_completion(raw: bytes) -> Completion:
    """The completion in a plain JSON answer; one marked as unread if it holds none."""
    completion = Completion()
    try:
        payload = orjson.loads(raw.removeprefix(BOM))
        take_head(completion, payload)
        for choice in payload.get("choices") or ():
            message = choice.get("message") or {}
            if not isinstance(message, dict):
                raise TypeError("a message")
            completion.messages.append(message)
            if choice.get("finish_reason"):
                completion.finish_reasons.append(str(choice["finish_reason"]))
            if "error" in choice:  # OpenRouter's, of a provider that broke off
                completion.error_type = completion.error_type or error_type_of(choice)
        if not completion.messages:
            completion.error_type = completion.error_type or UNREAD
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        completion.error_type = completion.error_type or UNREAD
    return completion


class CompletionAssembler(EventReader):
    """Reads a streamed completion and joins the chunks of each choice.

    Takes streams that end without `[DONE]`.
    """

    __slots__ = ("_choices", "_completion")

    def __init__(self) -> None:
        super().__init__()
        self._completion = Completion()
        self._choices: dict[int, Choice] = {}

    def finish(self) -> Completion:
        """The completion as far as it came."""
        self.flush()
        completion = self._completion
        choices = [self._choices[index] for index in sorted(self._choices)]
        completion.messages = [choice.message() for choice in choices]
        completion.finish_reasons = [c.finish_reason for c in choices if c.finish_reason]
        return completion

    def _kept(self) -> int:
        return sum(_CHOICE + choice.kept for choice in self._choices.values())

    def is_end(self, line: bytes) -> bool:
        return len(line) <= _MAX_DONE_LINE and _is_done(line)

    def take_event(self, raw: bytes) -> None:
        try:
            payload = orjson.loads(raw)
            take_head(self._completion, payload)
            for choice in payload.get("choices") or ():
                index = choice.get("index")
                index = index if isinstance(index, int) else 0
                known = self._choices.get(index)
                if known is None:
                    known = self._choices[index] = Choice()
                known.take(choice)
                if "error" in choice:
                    completion = self._completion
                    completion.error_type = completion.error_type or error_type_of(choice)
        except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
            if raw.strip() not in _WITHOUT_MEANING:
                self._completion.error_type = self._completion.error_type or UNREAD
                self.misread()


def _is_done(line: bytes) -> bool:
    return line.startswith(b"data:") and line[5:].strip() == _DONE
