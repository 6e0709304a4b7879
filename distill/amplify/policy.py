"""The policy: the rules that the teacher's answers to a task follow, described by the teacher.

It is part of the prompt for synthetic inputs, and every one of them is checked against its length
ranges. A range that the real rows contradict is widened first.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from distill.dataset.rows import Row
from distill.dataset.texts import shortened, system_prompt, user_text
from distill.teacher.client import TeacherClient
from store.chat.normal_form import normal_answer
from store.chat.shape import Messages
from store.jsontext import to_json

MAX_ROWS = 24  # shown to the teacher
MAX_TOOL_CHARS = 6_000  # of the definitions of all tools


class LengthRange(BaseModel):
    """A range of lengths, both ends included."""

    model_config = ConfigDict(frozen=True)

    minimum: int = Field(ge=0, description="characters of the shortest")
    maximum: int = Field(ge=0, description="characters of the longest")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError("minimum is above maximum")
        return self

    def __contains__(self, text: str) -> bool:
        return self.minimum <= len(text) <= self.maximum

    def covering(self, texts: Sequence[str]) -> LengthRange:
        """This range, widened to hold these texts."""
        lengths = [len(text) for text in texts]
        return LengthRange(
            minimum=min([self.minimum, *lengths]), maximum=max([self.maximum, *lengths])
        )


class TaskPolicy(BaseModel):
    """What defines a task, read from examples of its inputs and answers."""

    model_config = ConfigDict(frozen=True)

    task_description: str = Field(description="what is done with an input, in a sentence or two")
    input_format: str = Field(description="what an input is: kind of text, structure, language")
    output_format: str = Field(description="what an answer looks like, exactly")
    reasoning_style: str = Field(description="how an answer is arrived at")
    key_constraints: list[str] = Field(description="rules that every answer keeps")
    difficulty: Literal["easy", "moderate", "hard"] = Field(
        description="how hard the task is for a small language model"
    )
    reasoning_patterns: list[str] = Field(
        description="recurring ways from what an input says to its answer"
    )
    examples_summary: str = Field(description="what the inputs are about and how they differ")
    input_length_range: LengthRange = Field(description="how long inputs of this task are")
    output_length_range: LengthRange = Field(description="how long answers of this task are")


_INSTRUCTION = """\
You study a task that a language model is used for. Below are its production prompt, the tools \
that it may call, if any, and examples: inputs, and the answers that were given. Describe the task \
so well that somebody who never saw an example could write realistic inputs for it and would \
recognise a valid answer. Say only what the examples support. Lengths are in characters."""


async def extract_policy(client: TeacherClient, rows: Sequence[Row]) -> TaskPolicy:
    """Asks the teacher for the policy of the train rows, in one paid call.

    Raises TeacherError, and BudgetSpent when the token budget does not allow the call.
    """
    answer = await client.structured("policy", TaskPolicy, policy_prompt(rows))
    return made_to_cover(answer.value, rows)


def parents_of_policy(rows: Sequence[Row]) -> list[str]:
    """The ids of the traces that the teacher is shown for the policy of these rows."""
    return [row.trace_id for row in diverse(rows, MAX_ROWS)]


def made_to_cover(policy: TaskPolicy, rows: Sequence[Row]) -> TaskPolicy:
    """The policy with length ranges that hold all of these rows."""
    inputs = policy.input_length_range.covering([user_text(row.messages) for row in rows])
    outputs = policy.output_length_range.covering([row.target for row in rows])
    return policy.model_copy(update={"input_length_range": inputs, "output_length_range": outputs})


def policy_prompt(rows: Sequence[Row]) -> Messages:
    """The messages that ask for a policy."""
    shown = diverse(rows, MAX_ROWS)
    parts = list(dict.fromkeys(part for row in shown for part in production_parts(row)))
    parts += [
        f"<example>\n<input>\n{shortened(user_text(row.messages))}\n</input>\n"
        f"<answer>\n{shortened(row.target)}\n</answer>\n</example>"
        for row in shown
    ]
    return [
        {"role": "system", "content": _INSTRUCTION},
        {"role": "user", "content": "\n\n".join(parts)},
    ]


def production_parts(row: Row) -> list[str]:
    """The system prompt and the tools of a row's request, as a prompt of ours shows them."""
    prompt, tools = system_prompt(row.messages), row.params.get("tools")
    parts = [f"<production_prompt>\n{shortened(prompt)}\n</production_prompt>"] if prompt else []
    if tools:
        parts.append(f"<tools>\n{shortened(to_json(tools).decode(), MAX_TOOL_CHARS)}\n</tools>")
    return parts


def diverse(rows: Sequence[Row], count: int) -> list[Row]:
    """Up to `count` rows that differ from each other.

    They alternate between answers, so that rare labels are included. Within one answer they are
    spread evenly over the lengths of the inputs.
    """
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[normal_answer(row.target)].append(row)
    queues = [deque(_spread(group)) for group in groups.values()]
    if len(queues) > count:  # too many answers to show each: spread over the lengths instead
        queues = [deque(_spread([row for queue in queues for row in queue]))]
    chosen: list[Row] = []
    while queues and len(chosen) < count:
        chosen += [queue.popleft() for queue in queues[: count - len(chosen)]]
        queues = [queue for queue in queues if queue]
    return chosen


def _spread(rows: list[Row]) -> list[Row]:
    """The rows in an order in which every prefix is spread over the lengths of the inputs."""
    by_length = sorted(rows, key=lambda r: (len(user_text(r.messages)), r.input_hash))
    order: list[Row] = []
    ranges = deque([(0, len(by_length))])
    while ranges:
        low, high = ranges.popleft()
        if low < high:
            middle = (low + high) // 2
            order.append(by_length[middle])
            ranges += [(low, middle), (middle + 1, high)]
    return order
