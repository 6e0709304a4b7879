"""The plans of batches: other rows, other lengths, the rarest answers."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from demo.tasks.tasks import TASKS
from distill.amplify.diversity import (
    DIFFICULTIES,
    RECENT,
    Aims,
    BatchPlan,
    inputs_prompt,
    plan_batch,
)
from distill.dataset.answers import answers_of, describe
from distill.dataset.rows import Row
from distill.dataset.texts import user_text
from store.settings.tasks import AmplifySettings
from tests.helpers.demo_rows import EXTRACTION, JSON, LABELS, a_policy, a_row, rows_of

SETTINGS = AmplifySettings(batch=6, context=4)


def a_plan(rows: list[Row], seed: int = 1, **changes: Any) -> BatchPlan:
    values: dict[str, Any] = {"so_far": {}, "avoid": []}
    aims = Aims(answers_of(rows), [row.target for row in rows])
    return plan_batch(Random(seed), rows, SETTINGS, aims=aims, **{**values, **changes})


def test_labels_are_requested_evenly() -> None:
    plan = a_plan(rows_of(LABELS))
    assert Counter(spec.aim for spec in plan.inputs) == {"positive": 2, "negative": 2, "neutral": 2}


def test_the_rarest_label_is_requested_first() -> None:
    plan = a_plan(rows_of(LABELS), so_far={"positive": 9, "negative": 9, "neutral": 2})
    assert {spec.aim for spec in plan.inputs} == {"neutral"}


def test_repeated_json_answers_are_requested_whole() -> None:
    rows = rows_of(JSON, 150)
    aims = Aims(answers_of(rows), [row.target for row in rows])
    assert len(aims.all) == 15
    assert aims.of('{"priority": "low",  "category": "delivery"}') in aims.all


def test_repeated_fields_of_json_are_requested() -> None:
    targets = [f'{{"intent": "{"ab"[i % 2]}", "song": "s{i}", "sure": true}}' for i in range(40)]
    aims = Aims(describe(targets), targets)
    assert sorted(aims.all) == ['{"intent":"a","sure":true}', '{"intent":"b","sure":true}']
    assert aims.of("not json") is None


def test_answers_that_never_repeat_are_not_requested() -> None:
    rows = rows_of(EXTRACTION)
    assert Aims(answers_of(rows), [row.target for row in rows]).all == []
    assert {spec.aim for spec in a_plan(rows).inputs} == {None}


def test_every_requested_answer_has_an_example_in_the_context() -> None:
    rows = rows_of(LABELS)
    for seed in range(20):
        plan = a_plan(rows, seed)
        assert {row.target for row in plan.context} == {spec.aim for spec in plan.inputs}
        assert len({row.input_hash for row in plan.context}) == SETTINGS.context


@pytest.mark.slow
def test_batches_are_the_same_for_a_seed_and_rotate_over_the_rows() -> None:
    rows = rows_of(JSON)
    assert a_plan(rows, 5) == a_plan(rows, 5)
    shown = {row.input_hash for seed in range(60) for row in a_plan(rows, seed).context}
    assert len(shown) > 0.8 * len(rows)


def test_lengths_vary_within_those_of_real_inputs() -> None:
    rows = rows_of(EXTRACTION)
    lengths = [len(user_text(row.messages)) for row in rows]
    specs = [spec for seed in range(20) for spec in a_plan(rows, seed).inputs]
    assert {spec.difficulty for spec in specs} == set(DIFFICULTIES)
    assert len({(spec.min_chars, spec.max_chars) for spec in specs}) == 3
    assert min(spec.min_chars for spec in specs) == min(lengths)
    assert max(spec.max_chars for spec in specs) == max(lengths)
    assert all(spec.min_chars <= spec.max_chars for spec in specs)


def test_a_batch_shows_rows_of_one_fingerprint() -> None:
    rows = [*rows_of(LABELS, 20), *rows_of(LABELS, 20, seed=2, fingerprint="other")]
    seen = set()
    for seed in range(20):
        [fingerprint] = {row.fingerprint for row in a_plan(rows, seed).context}
        seen.add(fingerprint)
    assert len(seen) == 2


def test_a_batch_can_be_planned_from_one_row() -> None:
    plan = a_plan([a_row(LABELS, "Great lamp.")])
    assert len(plan.context) == 1
    assert len(plan.inputs) == SETTINGS.batch


def test_the_prompt_has_policy_examples_and_recent_inputs() -> None:
    rows = rows_of(LABELS)
    policy = a_policy()
    plan = a_plan(rows, avoid=[f"recent text {i}" for i in range(50)])
    [_, asked] = inputs_prompt(plan, policy)
    text = asked["content"]
    assert TASKS[LABELS].system in text
    assert policy.model_dump_json() in text
    assert all(user_text(row.messages) in text for row in plan.context)
    assert text.count("- recent text") == RECENT
    assert "recent text 49" in text
    assert "recent text 10\n" not in text
    assert f"Write {SETTINGS.batch} new inputs" in text
    assert text.count("<wanted ") == SETTINGS.batch
    assert "answer='positive'" in text


def test_the_prompt_omits_empty_sections() -> None:
    rows = rows_of(EXTRACTION)
    [_, asked] = inputs_prompt(a_plan(rows), a_policy())
    assert "<recent>" not in asked["content"]
    assert "answer='" not in asked["content"]
