"""The kind of a task's answers, and that a student's answer of another form is not served."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.dataset.answers import MAX_FORMS, answers_of, describe, share_seen_once
from distill.dataset.rows import Row
from distill.dataset.texts import is_short
from store.chat.normal_form import normal_text
from store.chat.student_wire import StudentAnswer, fault_of
from store.records import (
    Forms,
    OutputKind,
    Reason,
    TermsOfService,
)
from tests.helpers.student_samples import rows

BASE = rows(1, seed=1)[0]


def answered(*targets: str) -> list[Row]:
    return [replace(BASE, target=target) for target in targets]


WORDS = ["yes", "no", "maybe", "later"]
PHRASES = [f"{word}: {'a reason of seventy characters ' * 2}." for word in WORDS]
APOLOGY = "I am sorry, but I cannot help with that. " * 3
OBJECT = '{"a": 1}'


@pytest.mark.parametrize(
    ("targets", "kind", "labels"),
    [
        (WORDS * 100, "label", 4),
        ([*WORDS * 99, *WORDS[:3], APOLOGY], "label", 4),
        (PHRASES * 10, "label", 4),
        ([*WORDS * 68, *(f"case {n}" for n in range(128))], "label", 132),
        ([*WORDS * 66, *(f"case {n}" for n in range(136))], "text", 0),
        ([str(n) for n in range(50)], "text", 0),
        (["1", "2", "3", "4", "5"] * 10, "label", 5),
        ([f"a letter, {'again ' * 20}{n}" for n in range(50)], "text", 0),
        (["We will send it again within the next two days. " * 3] * 40, "text", 0),
        (["yes", " yes", "yes\n", "cafe\u0301", "caf\u00e9"] * 2, "label", 2),
        ([OBJECT] * 95 + ["sorry"] * 5, "json", 0),
        ([OBJECT] * 94 + ["sorry"] * 6, "label", 2),
        ([OBJECT, "[1]"] * 20, "json", 0),
        (['{"a": 1, "a": 2}'] * 20, "label", 1),  # readers disagree about its value: no JSON
    ],
)
def test_the_kind_of_answers(targets: list[str], kind: OutputKind, labels: int) -> None:
    answers = describe(targets)
    assert (answers.kind, len(answers.labels)) == (kind, labels)
    assert str(len(targets)) in answers.reason


def test_an_apology_among_labels_is_no_label() -> None:
    answers = describe([*WORDS * 99, *WORDS[:3], APOLOGY])
    assert answers.labels == frozenset(WORDS)
    assert answers.closed
    assert answers.forms().labels == sorted(WORDS)


def test_labels_are_not_closed_while_new_ones_are_to_be_expected() -> None:
    assert not describe([*WORDS * 68, *(f"case {n}" for n in range(128))]).closed
    assert describe([*WORDS * 25, "only once"]).closed


def test_no_answers_have_no_kind() -> None:
    with pytest.raises(ValueError, match="no answers"):
        describe([])


ANSWER = st.sampled_from([*WORDS, OBJECT, '{"b": 2}', "[1]", APOLOGY, "two\nlines", "17"])
ODD = st.text(max_size=90)


@given(st.lists(ANSWER | ODD, min_size=1, max_size=60), st.randoms())
@pytest.mark.slow
def test_the_kind_depends_on_neither_order_nor_spelling(targets: list[str], random: Random) -> None:
    """Scorer, checks, slices and forms use one record; other spellings do not change it."""
    answers = describe(targets)
    shuffled = [f" {unicodedata.normalize('NFD', target)}\n" for target in targets]
    random.shuffle(shuffled)
    again = describe(shuffled)
    assert (again.kind, again.labels, again.closed, again.lists) == (
        answers.kind,
        answers.labels,
        answers.closed,
        answers.lists,
    )


@given(st.lists(ANSWER, min_size=1, max_size=60))
def test_every_short_answer_to_a_task_of_labels_has_one_of_its_labels(targets: list[str]) -> None:
    answers = describe(targets)
    if answers.kind == "label":
        short = {normal_text(t) for t in targets if is_short(normal_text(t))}
        assert answers.labels == short
    assert set(answers.forms().labels) == answers.labels


@given(st.lists(st.sampled_from(WORDS), min_size=100, max_size=200), st.integers(0, 5))
@pytest.mark.slow
def test_a_few_odd_answers_do_not_change_the_kind(targets: list[str], odd: int) -> None:
    spoilt = [*targets, *(f"{APOLOGY}{n}" for n in range(odd))]
    assert describe(spoilt).labels == describe(targets).labels


@pytest.mark.parametrize(
    ("values", "share"), [([], 1.0), (["a"], 1.0), (["a", "a"], 0.0), (["a", "a", "b", "c"], 0.5)]
)
def test_share_seen_once(values: list[str], share: float) -> None:
    assert share_seen_once(values) == share


@pytest.mark.parametrize(
    ("targets", "forms"),
    [
        (["yes", "no", " yes\n", "no"], Forms(labels=["no", "yes"])),
        (['{"b": 1, "a": 2}', '{"a": 3}', "[1]"], Forms(keys=[["a"], ["a", "b"]])),
        (['{"b": 1, "a": 2}', '{"a": 3}'], Forms(keys=[["a"], ["a", "b"]], lists=False)),
        (["one thing", "another"], Forms()),
        ([str(n) for n in range(MAX_FORMS + 1)] * 2, Forms()),
    ],
)
def test_the_forms_of_answers(targets: list[str], forms: Forms) -> None:
    assert answers_of(answered(*targets)).forms() == forms


@pytest.mark.parametrize(
    ("text", "output", "forms", "fault"),
    [
        ("yes", "label", Forms(labels=["no", "yes"]), None),
        ("yes ", "label", Forms(labels=["no", "yes"]), None),
        ("yess", "label", Forms(labels=["no", "yes"]), Reason.STUDENT_MALFORMED),
        ("anything", "label", Forms(), None),
        ("anything", "label", None, None),
        ('{"b": 1, "a": 2}', "json", Forms(keys=[["a", "b"]]), None),
        ('{"a": 2}', "json", Forms(keys=[["a", "b"]]), Reason.STUDENT_MALFORMED),
        ('{"a": 2, "b": 3, "c": 4}', "json", Forms(keys=[["a", "b"]]), Reason.STUDENT_MALFORMED),
        ("[1, 2]", "json", Forms(keys=[["a", "b"]]), None),
        ("[1, 2]", "json", Forms(keys=[["a", "b"]], lists=False), Reason.STUDENT_MALFORMED),
        ('{"a": 2}', "json", Forms(), None),
        ("a", "json", Forms(), Reason.STUDENT_MALFORMED),
        ("yess", "text", Forms(labels=["no", "yes"]), None),
    ],
)
async def test_an_answer_of_an_unknown_form_is_not_served(
    text: str, output: OutputKind, forms: Forms | None, fault: Reason | None
) -> None:
    answer = StudentAnswer(
        text=text, signals=None, finish_reason="stop", input_tokens=1, output_tokens=1
    )
    result = await fault_of(answer, TermsOfService(output=output, forms=forms), {})
    assert result == fault
