"""Renders a conversation to the student's tokens, in training exactly as in service.

`mlx_lm.server` renders a request with the base's own chat template and `TEMPLATE_ARGUMENTS`. The
same rendering is the prompt of a training row, followed by the answer's tokens as the student has
to produce them. So the prompt is the same in training and service, also with reasoning bases (Qwen3
adds an empty thought to the prompt when thinking is off).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from store.chat.shape import Messages
from store.chat.student_wire import student_messages

# used by trainer and server; a template ignores names that it does not know
TEMPLATE_ARGUMENTS: dict[str, bool] = {"enable_thinking": False}


@dataclass(frozen=True, slots=True)
class Rendered:
    """One training row as tokens."""

    tokens: list[int]  # prompt, answer, end token
    answer: int  # where the answer begins

    def __len__(self) -> int:
        return len(self.tokens)


class Renderer:
    """Renders conversations for one tokenizer (mlx_lm's wrapper around a Hugging Face one)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._end = self._end_token()

    def prompt(self, messages: Messages) -> list[int]:
        """The tokens of a request's messages, as `mlx_lm.server` renders them."""
        return list(self._template(student_messages(messages), tokenize=True))

    def row(self, messages: Messages, target: str) -> Rendered:
        """The tokens of a request and its answer.

        The answer is tokenised together with the prompt if that leaves the prompt's tokens
        unchanged; else by itself, since the prompt is fixed when the student answers.
        """
        prompt = self.prompt(messages)
        text = self._template(student_messages(messages), tokenize=False)
        joint = self._encode(text + target)
        if joint[: len(prompt)] == prompt and len(joint) > len(prompt):
            answer = joint[len(prompt) :]
        else:
            answer = self._encode(target)
        return Rendered([*prompt, *answer, self._end], len(prompt))

    def _template(self, messages: list[dict[str, str]], *, tokenize: bool) -> Any:
        return self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=tokenize, **TEMPLATE_ARGUMENTS
        )

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _end_token(self) -> int:
        """The token that ends an answer in the template; it may differ from the tokenizer's EOS."""
        turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        tokens = self._tokenizer.apply_chat_template(turn, tokenize=True, **TEMPLATE_ARGUMENTS)
        for token in reversed(tokens):
            if token in self._tokenizer.eos_token_ids:
                return int(token)
        return int(self._tokenizer.eos_token_id)
