"""The policy: its prompt, and that real rows widen its ranges."""

from __future__ import annotations

import orjson
import pytest
from pydantic import ValidationError

from demo.tasks.tasks import TASKS
from demo.teacher.teacher import start_teacher
from distill.amplify.policy import (
    MAX_ROWS,
    LengthRange,
    TaskPolicy,
    diverse,
    extract_policy,
    made_to_cover,
    policy_prompt,
)
from distill.dataset.texts import MAX_SHOWN_CHARS, shortened, user_text
from store.errors import BudgetSpent
from store.records import TeacherCall
from tests.helpers.demo_rows import EXTRACTION, JSON, LABELS, a_client, a_policy, a_row, rows_of

FIELDS = {
    "task_description",
    "input_format",
    "output_format",
    "reasoning_style",
    "key_constraints",
    "difficulty",
    "reasoning_patterns",
    "examples_summary",
    "input_length_range",
    "output_length_range",
}


@pytest.mark.parametrize("task", TASKS)
async def test_a_policy_takes_one_call_and_covers_the_rows(task: str) -> None:
    rows = rows_of(task, 80)
    calls: list[TeacherCall] = []
    async with (
        await start_teacher() as teacher,
        a_client(teacher.base_url, record=calls.append) as client,
    ):
        policy = await extract_policy(client, rows)
    assert set(policy.model_dump()) == FIELDS
    assert policy.task_description == TASKS[task].policy["task_description"]
    assert [call.purpose for call in calls] == ["policy"]
    assert teacher.counts == {"policy": 1}
    for row in rows:
        assert user_text(row.messages) in policy.input_length_range
        assert row.target in policy.output_length_range


def test_every_field_of_the_policy_is_described_to_the_teacher() -> None:
    properties = TaskPolicy.model_json_schema()["properties"]
    assert set(properties) == FIELDS
    assert all(field["description"] for field in properties.values())


def test_ranges_that_the_rows_contradict_are_widened() -> None:
    policy = a_policy(
        input_length_range=LengthRange(minimum=30, maximum=40),
        output_length_range=LengthRange(minimum=0, maximum=500),
    )
    rows = [a_row(LABELS, "Great lamp."), a_row(LABELS, "A" * 90)]
    covered = made_to_cover(policy, rows)
    assert covered.input_length_range == LengthRange(minimum=11, maximum=90)
    assert covered.output_length_range == LengthRange(minimum=0, maximum=500)
    assert covered.task_description == policy.task_description


def test_a_length_range_with_swapped_ends_is_rejected() -> None:
    with pytest.raises(ValidationError, match="minimum is above maximum"):
        LengthRange(minimum=3, maximum=2)


def test_the_prompt_shows_the_production_prompt_and_examples() -> None:
    rows = rows_of(JSON, 40)
    [_, asked] = policy_prompt(rows)
    assert TASKS[JSON].system in asked["content"]
    assert asked["content"].count("<example>") == MAX_ROWS
    shown = [row for row in rows if user_text(row.messages) in asked["content"]]
    assert len(shown) >= MAX_ROWS
    assert all(row.target in asked["content"] for row in shown)


def test_long_texts_are_shortened_in_the_prompt() -> None:
    rows = [a_row(LABELS, f"{i} {'very ' * 5000} long") for i in range(40)]
    [_, asked] = policy_prompt(rows)
    assert len(asked["content"]) < MAX_ROWS * (MAX_SHOWN_CHARS + 200) + 1000
    assert "characters left out" in asked["content"]


def test_shortened_keeps_both_ends() -> None:
    text = "a" * 100 + "b" * 100
    assert shortened(text, 200) == text
    short = shortened(text, 20)
    assert short.startswith("a" * 10 + "\n")
    assert short.endswith("\n" + "b" * 10)
    assert "180 characters" in short


def test_diverse_rows_have_every_answer_before_one_comes_twice() -> None:
    rows = [*rows_of(LABELS, 60), a_row(LABELS, "It is square.", target="rare")]
    chosen = diverse(rows, 4)
    assert {row.target for row in chosen} == {"positive", "negative", "neutral", "rare"}
    assert len(diverse(rows, 1000)) == len(rows)
    assert diverse(rows, 10) == diverse(rows, 10)


def test_diverse_rows_are_spread_over_lengths_when_every_answer_differs() -> None:
    rows = rows_of(EXTRACTION, 200)
    lengths = sorted(len(user_text(row.messages)) for row in rows)
    result = sorted(len(user_text(row.messages)) for row in diverse(rows, 15))
    assert result[0] < lengths[40]
    assert result[-1] > lengths[160]


def test_a_policy_reads_back_as_it_was_written() -> None:
    policy = a_policy()
    assert TaskPolicy.model_validate(orjson.loads(policy.model_dump_json())) == policy


async def test_no_policy_is_requested_without_a_budget() -> None:
    async with await start_teacher() as teacher, a_client(teacher.base_url, budget=10) as client:
        with pytest.raises(BudgetSpent):
            await extract_policy(client, rows_of(LABELS, 5))
    assert teacher.counts == {}
