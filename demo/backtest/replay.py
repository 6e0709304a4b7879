"""The replay teacher: a real OpenAI-compatible server that only knows recorded answers.

It answers recorded requests with their recorded answers; any other request is a 404. As synthetic
inputs it gives those of pool rows, each once; as a policy, facts that the request itself shows. So
a backtest never uses an answer that the real teacher did not give.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import orjson
from pydantic import BaseModel

from demo.backtest.logs import Layout, LogRow, messages_key
from demo.teacher.structured import StructuredCall, structured_call
from demo.teacher.wire import (
    CHARS_A_TOKEN,
    TOKENS_A_MESSAGE,
    Refusal,
    Reply,
    TeacherServer,
    request_tokens,
    text_tokens,
)
from distill.amplify.diversity import SyntheticInputs
from distill.amplify.policy import LengthRange, TaskPolicy
from distill.dataset.texts import shortened, system_prompt, user_text
from store.chat.shape import Messages, text_of
from store.jsontext import JsonObject

MODEL = "replay"
TOKEN_RULE = (
    f"a token for each {CHARS_A_TOKEN} characters, rounded up, "
    f"and {TOKENS_A_MESSAGE} more for each message"
)

# as in the prompts of distill/amplify/policy.py and distill/amplify/diversity.py
_HOW_MANY = re.compile(r"\bWrite (\d+) new inputs\b")
_PRODUCTION = re.compile(r"<production_prompt>\n(.*?)\n</production_prompt>", re.S)
_EXAMPLE = re.compile(r"<input>\n(.*?)\n</input>\n<answer>\n(.*?)\n</answer>", re.S)


class Phase(StrEnum):
    """The present use of recorded answers."""

    TRAFFIC = "traffic"
    ANSWERS = "answers"  # by the run, to synthetic inputs
    TEST = "test"


@dataclass(slots=True)
class Tally:
    """Requests of one purpose, and their tokens."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


class ReplayTeacher:
    """Answers requests, and keeps a ledger of them. The caller sets `phase`."""

    def __init__(self, layout: Layout) -> None:
        self.phase = Phase.TRAFFIC
        self.ledger = {
            name: Tally() for name in ("traffic", "policy", "inputs", "answers", "test", "unknown")
        }
        rows = (*layout.traffic, *layout.pool, *layout.test)
        self._answers = {messages_key(row.messages): row.answer for row in rows}
        self._inputs: defaultdict[str, deque[str]] = defaultdict(deque)  # by production prompt
        for row in layout.pool:
            if _has_one_turn(row):
                prompt = shortened(system_prompt(row.messages))
                self._inputs[prompt].append(user_text(row.messages))

    def server(self, *, latency_s: float = 0) -> TeacherServer:
        """This teacher as a server, not yet started."""
        return TeacherServer(self, models=[MODEL], latency_s=latency_s)

    def __call__(self, body: JsonObject) -> Reply:
        call = structured_call(body)
        try:
            reply = self._structured(call) if call else self._recorded(body["messages"])
        except Refusal:
            self._count("unknown", body, "")
            raise
        self._count(reply.kind, body, reply.text)
        return reply

    def _recorded(self, messages: Messages) -> Reply:
        answer = self._answers.get(messages_key(messages))
        if answer is None:
            raise Refusal(
                404, "No answer to these messages was recorded.", code="answer_not_recorded"
            )
        return Reply(self.phase, answer)

    def _structured(self, call: StructuredCall) -> Reply:
        if call.name == TaskPolicy.__name__:
            return _reply(call, "policy", policy_of(call.prompt))
        if call.name == SyntheticInputs.__name__:
            return _reply(call, "inputs", SyntheticInputs(inputs=self.inputs_for(call.prompt)))
        raise Refusal(404, f"Nothing was recorded for a schema '{call.name}'.")

    def inputs_for(self, prompt: str) -> list[str]:
        """As many inputs as are wanted, of those recorded under the production prompt shown."""
        counts, shown = _HOW_MANY.findall(prompt), _PRODUCTION.search(prompt)
        if not counts:
            raise Refusal(404, "The request does not say how many inputs it wants.")
        inputs = self._inputs[shown[1] if shown else ""]
        return [inputs.popleft() for _ in range(min(int(counts[-1]), len(inputs)))]

    def _count(self, purpose: str, body: JsonObject, text: str) -> None:
        tally = self.ledger[purpose]
        tally.requests += 1
        tally.input_tokens += request_tokens(body)
        tally.output_tokens += text_tokens(text)


def tokens_of(messages: Messages, answer: str) -> tuple[int, int]:
    """Input and output tokens of one exchange, by TOKEN_RULE."""
    return request_tokens({"messages": messages}), text_tokens(answer)


def policy_of(prompt: str) -> TaskPolicy:
    """A policy of facts counted in the examples of the request.

    Raises Refusal when the request shows none.
    """
    shown = _EXAMPLE.findall(prompt)
    if not shown:
        raise Refusal(404, "A policy can only be told from examples, and the request has none.")
    inputs, answers = [text for text, _ in shown], [text for _, text in shown]
    answer_form = _form(answers)
    return TaskPolicy(
        task_description="The task that the production prompt sets, as it was recorded.",
        input_format=f"text of {_span(inputs)}",
        output_format=answer_form,
        reasoning_style="not recorded",
        key_constraints=[f"an answer is {answer_form}"],
        difficulty="moderate",
        reasoning_patterns=[],
        examples_summary=f"{len(shown)} examples with {len(set(answers))} different answers",
        input_length_range=_lengths(inputs),
        output_length_range=_lengths(answers),
    )


def _form(answers: list[str]) -> str:
    """The common form of the answers."""
    values = [_as_json(answer) for answer in answers]
    if all(isinstance(value, dict) for value in values):
        keys = set.intersection(*(set(value) for value in values))
        return f"a JSON object with at least the keys {', '.join(sorted(keys)) or '(none)'}"
    if all(isinstance(value, list) for value in values):
        return "a JSON array"
    return f"text of {_span(answers)}"


def _as_json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _lengths(texts: list[str]) -> LengthRange:
    return LengthRange(minimum=min(map(len, texts)), maximum=max(map(len, texts)))


def _span(texts: list[str]) -> str:
    lengths = _lengths(texts)
    return f"{lengths.minimum} to {lengths.maximum} characters"


def _has_one_turn(row: LogRow) -> bool:
    """Whether the request is one user message, with or without a system prompt."""
    roles = [m["role"] for m in row.messages if m["role"] not in ("system", "developer")]
    last = row.messages[-1]
    return roles == ["user"] and last["role"] == "user" and bool(text_of(last.get("content")))


def _reply(call: StructuredCall, kind: str, answer: BaseModel) -> Reply:
    return Reply(kind, answer.model_dump_json(), tool=call.name if call.tool else None)
