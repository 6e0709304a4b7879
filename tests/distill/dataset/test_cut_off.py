"""Answers that end too early although the teacher says that they are finished."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from distill.dataset.cut_off import GivenAnswer, cut_off, is_incomplete_json
from distill.dataset.rows import choose_rows
from store.settings.tasks import SplitSettings
from tests.helpers.demo_rows import an_exchange


def found(*answers: GivenAnswer) -> list[str]:
    """The texts of those that are cut off."""
    return [a.text for a, cut in zip(answers, cut_off(answers), strict=True) if cut]


def objects(count: int) -> list[GivenAnswer]:
    return [GivenAnswer(json.dumps({"id": n, "topic": "refund"})) for n in range(count)]


@pytest.mark.parametrize(
    "half", ['{"id": 4, "topic": "ref', '{"id": 4,', '{"id": 4, "topic": tr', "[1, 2", '{"id": }']
)
def test_half_a_json_answer_is_found_where_nearly_all_can_be_read(half: str) -> None:
    assert found(*objects(40), GivenAnswer(half)) == [half]


def test_where_many_answers_are_no_json_none_is_taken_for_half_of_one() -> None:
    code = [GivenAnswer("{ return x; }") for _ in range(10)]
    assert found(*objects(40), *code) == []
    assert found(*code, GivenAnswer("[1, 2")) == []


def test_words_among_json_are_no_half_json() -> None:
    assert found(*objects(40), GivenAnswer("I could not find an order id.")) == []


@pytest.mark.parametrize("odd", ['{"a": NaN}', '{"a": 1, "a": 2}', ' {"a": 1} \n'])
def test_odd_but_whole_json_is_not_cut_off(odd: str) -> None:
    assert found(*objects(40), GivenAnswer(odd)) == []


def test_a_code_block_that_is_never_closed_is_cut_off() -> None:
    blocks = [GivenAnswer(f"```json\n{a.text}\n```") for a in objects(30)]
    half = '```json\n{"id": 31, "topic": "re'
    assert found(*blocks, GivenAnswer(half)) == [half]


def sentences(count: int, limit: int = 64) -> list[GivenAnswer]:
    draw = random.Random(1)
    return [
        GivenAnswer(f"Your order {n} will be sent on day {n}.", draw.randint(9, 40), limit)
        for n in range(count)
    ]


def test_a_text_that_ends_within_a_word_at_the_token_limit_is_cut_off() -> None:
    half = GivenAnswer("Your order was sent to the wrong addr", 64, 64)
    clause = GivenAnswer("We are sorry to hear that your order,", 65, 64)
    assert found(*sentences(30), half, clause) == [half.text, clause.text]


@pytest.mark.parametrize(
    "whole",
    [
        GivenAnswer("It fits the limit, and ends here.", 64, 64),
        GivenAnswer("It ends without a stop", 40, 64),
        GivenAnswer("It has no limit, and no stop", 64, None),
        GivenAnswer("Nobody counted its tokens, and no stop", None, 64),
    ],
    ids=["a sentence", "below the limit", "no limit", "not counted"],
)
def test_a_text_that_ends_by_itself_is_whole(whole: GivenAnswer) -> None:
    assert found(*sentences(30), whole) == []


def test_many_texts_may_be_cut_off_by_a_limit_that_is_too_low() -> None:
    halves = [GivenAnswer(f"The order number {n} was se", 32, 32) for n in range(40)]
    assert len(found(*sentences(10, 32), *halves)) == 40


@pytest.mark.parametrize(
    "labels",
    [
        [GivenAnswer(label, 1, 1) for label in ("yes", "no") * 20],
        [GivenAnswer(str(n), 1, 1) for n in range(40)],  # a number in one token, each once
        [GivenAnswer(label, 20, 20) for label in ("a very long label", "another one") * 20],
    ],
    ids=["labels", "numbers", "long labels"],
)
def test_labels_that_fill_their_limit_are_whole(labels: list[GivenAnswer]) -> None:
    assert found(*labels) == []


@pytest.mark.parametrize(
    ("text", "incomplete"),
    [
        ('{"a": "b', True),
        ('{"a": [1, 2', True),
        ('{"a": fal', True),
        ('{"a"', True),
        ("{", True),
        ('{"a": 1}', False),
        ('{"a": 1,}', False),
        ('{"a": oops}', False),
        ("[note] call back", False),
        ("words", False),
        ("", False),
        ("[" * 100_000, False),
    ],
)
def test_incomplete_json_is_a_beginning_of_json(text: str, incomplete: bool) -> None:
    assert is_incomplete_json(text) is incomplete


def test_answers_that_are_cut_off_are_counted_and_not_learned() -> None:
    whole = [an_exchange(f"request {n * 7919}", '{"topic": "refund"}', at=n) for n in range(40)]
    half = an_exchange("the last one", '{"topic": "ref', at=900.0)
    mended = replace(half, trace_id="m", kind="correction", replacement='{"topic": "ref')
    assert choose_rows([*whole, half], SplitSettings()).left_out == {"cut_off": 1}
    corrected = choose_rows([*whole, mended], SplitSettings())
    assert "cut_off" not in corrected.left_out
    assert "m" in {row.trace_id for row in corrected.rows}


@pytest.mark.parametrize(("estimated", "left_out"), [(False, {"cut_off": 1}), (True, {})])
def test_tokens_count_only_as_their_teacher_counted_them(
    estimated: bool, left_out: dict[str, int]
) -> None:
    params = '{"model": "gpt-big", "max_tokens": 64}'
    whole = [an_exchange(f"request {n * 7919}", f"It is number {n}.", at=n) for n in range(40)]
    full = an_exchange(
        "the last one",
        "Your order was sent to the wrong addr",
        at=900.0,
        request_params=params,
        output_tokens=64,
        tokens_estimated=estimated,
    )
    assert choose_rows([*whole, full], SplitSettings()).left_out == left_out
