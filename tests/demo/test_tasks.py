"""The demo's tasks: the rules read the writer's intent out of texts that vary widely."""

from __future__ import annotations

from itertools import islice
from random import Random
from typing import Any

import orjson
import pytest

from demo.tasks.tasks import TASKS, DemoTask, task_of
from distill.amplify.near_duplicates import NearDuplicates
from distill.amplify.policy import TaskPolicy
from tests.helpers.demo_rows import EXTRACTION, JSON, LABELS

every_task = pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))


@every_task
def test_the_rules_find_the_answer_that_a_text_was_made_for(task: DemoTask) -> None:
    rng = Random("rules")
    for _ in range(5000):
        text, meant = task.draw(rng)
        assert task.answer(text) == meant, text


@every_task
def test_texts_vary_and_stay_short(task: DemoTask) -> None:
    drawn = [task.draw(Random(f"{seed}"))[0] for seed in range(5000)]
    assert len(set(drawn)) > 4000
    assert max(map(len, drawn)) <= 130
    seen, near = NearDuplicates(0.9), 0
    for text in islice(task.texts("vary"), 500):
        near += text in seen
        seen.add(text)
    assert near < 50


@every_task
def test_texts_are_distinct_and_the_same_for_the_same_seed(task: DemoTask) -> None:
    first = list(islice(task.texts(1), 300))
    assert first == list(islice(task.texts(1), 300))
    assert len(set(first)) == 300
    assert len(set(first) & set(islice(task.texts(2), 300))) < 30


@every_task
def test_every_answer_occurs_often_enough(task: DemoTask) -> None:
    """No label is so rare that a few hundred traces would not show it."""
    rng = Random("labels")
    answers = [task.draw(rng)[1] for _ in range(3000)]
    if task.name != EXTRACTION:
        assert min(answers.count(a) for a in set(answers)) > 100


@pytest.mark.parametrize(
    ("task", "text", "answer"),
    [
        (JSON, "you billed me twice, i want my money back", ("billing", "normal")),
        (JSON, "Hello! Do you sell gift cards?", ("question", "normal")),
        (JSON, "It doesn't load and my parcel is gone, parcel 12", ("delivery", "normal")),
        (JSON, "Charged twice on my card. Urgent!!", ("billing", "high")),
        (JSON, "App keeps crashing, not urgent though.", ("technical", "low")),
        (JSON, "LOCKED OUT OF MY PROFILE, PLEASE HELP IMMEDIATELY", ("account", "high")),
        (JSON, "Could you track my package? No rush.", ("delivery", "low")),
        (JSON, "", ("question", "normal")),
        (EXTRACTION, "Order AB-1234, May 3, 2024, £12", ("AB-1234", "May 3, 2024", "12")),
        (EXTRACTION, "12.50€ on 2020-02-02 (no number)", (None, "2020-02-02", "12.50")),
        (EXTRACTION, "Where is my stuff?", (None, None, None)),
        (EXTRACTION, "A-1111 or B-2222? $1.00 not $2.00", ("A-1111", None, "1.00")),
        (LABELS, "not good at all", "negative"),
        (LABELS, "It isn't bad.", "positive"),
        (LABELS, "Never had a better time. Great!", "positive"),
        (LABELS, "Great sound. Awful battery.", "neutral"),
        (LABELS, "The sky is blue.", "neutral"),
    ],
)
def test_the_rules_answer_texts_of_other_origin(task: str, text: str, answer: Any) -> None:
    said = TASKS[task].answer(text)
    if task != LABELS:
        assert tuple(orjson.loads(said).values()) == answer
    else:
        assert said == answer


@every_task
def test_the_policy_of_a_task_is_a_valid_task_policy(task: DemoTask) -> None:
    TaskPolicy.model_validate(task.policy)
    assert task_of(f"before {task.system} after") is task
    assert task_of("something else") is None
