"""Feedback as evidence: complaints are failed audits, in whatever order they are collected."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.collect import collect
from distill.monitor.feedback import complains, feedback_comparisons, judged_pairs
from store.database.comparisons import write_comparisons
from store.database.database import Database
from store.database.promotions import append_promotion
from store.ids import new_id
from store.records import (
    Comparison,
    Feedback,
    Trace,
)
from store.settings.config import StoreSettings
from tests.helpers.samples import (
    a_comparison,
    a_feedback,
    a_promotion,
    a_route,
    a_trace,
    write_segment,
)
from tests.helpers.stored import comparisons_of_student

STUDENT = new_id()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def served(**changes: Any) -> Trace:
    """A trace that the student answered with `shipping`."""
    values = {"served_by": "student", "route": "student", "reason": "certified"}
    return a_trace(**{**values, "student_id": STUDENT, "confidence": 0.875, **changes})


def after(db: Database, journal: Path, *written: Trace | Feedback) -> list[Comparison]:
    """The comparisons that follow from these records, collected in one segment."""
    write_segment(journal, *written)
    collect(db, journal, {})
    return feedback_comparisons(db)


# ---- complaints ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"score": 0.0}, True),
        ({"score": 0.49}, True),
        ({"score": 0.5}, False),
        ({"score": 1.0}, False),
        (
            {"score": 0.0, "correction": "shipping"},
            True,
        ),  # a bad score is a complaint whatever the correction
        ({"score": 1.0, "correction": "returns"}, False),
        ({"score": None, "correction": "returns"}, True),
        ({"score": None, "correction": "shipping"}, False),
        ({"score": None, "correction": " shipping\n"}, False),
    ],
)
@pytest.mark.slow
def test_a_complaint_is_a_comparison_that_disagrees(
    db: Database, journal: Path, changes: dict[str, Any], complaint: bool
) -> None:
    trace = served()
    feedback = a_feedback(trace.trace_id, **changes)
    made = after(db, journal, trace, feedback)
    score = feedback.score or 0.0
    expected = Comparison(
        trace_id=trace.trace_id,
        task="triage",
        student_id=STUDENT,
        kind="feedback",
        scorer="exact",
        score=score,
        agrees=False,
        servable=True,
        fault=None,
        confidence=0.875,
        teacher_output=feedback.correction,
        student_output="shipping",
        at=feedback.feedback_at,
    )
    assert made == ([expected] if complaint else [])
    assert comparisons_of_student(db, STUDENT) == made


@pytest.mark.parametrize(
    "changes",
    [
        {"served_by": "teacher", "route": "teacher", "student_id": None},
        {"served_by": "teacher", "route": "fallback"},
        {"task": None},
        {"student_id": None},
        {"student_id": "run-1"},  # not an id of ours
    ],
)
def test_feedback_on_anything_but_a_students_answer_is_ignored(
    db: Database, journal: Path, changes: dict[str, Any]
) -> None:
    trace = served(**changes)
    assert after(db, journal, trace, a_feedback(trace.trace_id)) == []
    assert db.query("has_new_feedback") == []


@pytest.mark.parametrize("messages", [None, "[]", "no json", "{}", "[5]", '[{"content":null}]'])
@pytest.mark.slow
def test_a_trace_without_a_readable_answer_does_not_block_others(
    db: Database, journal: Path, messages: str | None
) -> None:
    odd, trace = served(output_messages=messages), served()
    made = after(db, journal, odd, trace, a_feedback(odd.trace_id), a_feedback(trace.trace_id))
    assert {c.trace_id for c in made} == {odd.trace_id, trace.trace_id}


def test_feedback_on_an_unknown_trace_has_no_effect(db: Database, journal: Path) -> None:
    assert after(db, journal, a_feedback(new_id()), a_trace()) == []
    assert db.query("has_new_feedback") == []


def test_a_correction_with_other_json_formatting_is_no_complaint() -> None:
    assert not complains(None, '{"b": 1, "a": 2}', '{"a":2,"b":1}')
    assert complains(None, '{"b": 1}', '{"a":2,"b":1}')
    assert complains(None, "anything", None)
    assert not complains(None, None, "an answer")


def test_the_comparison_has_the_scorer_of_the_students_last_route(
    db: Database, journal: Path
) -> None:
    other = new_id()
    for at, (run, scorer) in enumerate([(STUDENT, "json"), (STUDENT, "text"), (other, "judge")]):
        route = a_route(student_id=run, scorer=scorer)
        append_promotion(db, a_promotion(run_id=run, route=route, at=float(at)))
    append_promotion(  # a demotion has no route
        db, a_promotion(run_id=STUDENT, target="teacher", state="demoted", route=None, at=9.0)
    )
    first, second = served(), served(student_id=other)
    made = after(
        db, journal, first, second, a_feedback(first.trace_id), a_feedback(second.trace_id)
    )
    assert [c.scorer for c in made] == ["text", "judge"]


# ---- newest feedback ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_complaint_that_is_taken_back_becomes_an_agreement(db: Database, journal: Path) -> None:
    trace = served()
    [complaint] = after(db, journal, trace, a_feedback(trace.trace_id, feedback_at=1.0))
    assert not complaint.agrees
    [praise] = after(db, journal, a_feedback(trace.trace_id, score=0.75, feedback_at=2.0))
    assert (praise.agrees, praise.score, praise.at) == (True, 0.75, 2.0)
    assert comparisons_of_student(db, STUDENT) == [praise]
    [again] = after(db, journal, a_feedback(trace.trace_id, score=0.25, feedback_at=3.0))
    assert (again.agrees, again.score) == (False, 0.25)
    assert comparisons_of_student(db, STUDENT) == [again]


@pytest.mark.slow
def test_older_feedback_collected_later_does_not_replace_newer(db: Database, journal: Path) -> None:
    """A dead worker's segment is collected after those of running ones."""
    trace = served()
    after(db, journal, trace, a_feedback(trace.trace_id, feedback_at=5.0))
    after(db, journal, a_feedback(trace.trace_id, score=1.0, feedback_at=4.0))
    [held] = comparisons_of_student(db, STUDENT)
    assert (held.agrees, held.at) == (False, 5.0)


@pytest.mark.slow
def test_repeated_feedback_on_a_trace_counts_once(db: Database, journal: Path) -> None:
    trace = served()
    after(db, journal, trace, *(a_feedback(trace.trace_id, feedback_at=float(i)) for i in range(5)))
    after(db, journal, a_feedback(trace.trace_id, feedback_at=9.0))
    [held] = comparisons_of_student(db, STUDENT)
    assert held.at == 9.0


def test_feedback_does_not_replace_an_audit_of_the_same_trace(db: Database, journal: Path) -> None:
    trace = served()
    audit = a_comparison(trace_id=trace.trace_id, student_id=STUDENT, kind="audit", at=1.0)
    write_comparisons(db, [audit])
    [complaint] = after(db, journal, trace, a_feedback(trace.trace_id, feedback_at=2.0))
    assert comparisons_of_student(db, STUDENT) == [audit, complaint]


# ---- order, restarts, repetition ---------------------------------------------------------------


@pytest.mark.slow
def test_a_second_call_returns_nothing(db: Database, journal: Path) -> None:
    trace = served()
    assert len(after(db, journal, trace, a_feedback(trace.trace_id))) == 1
    assert feedback_comparisons(db) == []
    assert after(db, journal, served(), a_trace()) == []


@pytest.mark.slow
def test_feedback_waits_for_its_trace_across_a_restart(tmp_path: Path) -> None:
    file, journal, trace = tmp_path / "u.duckdb", tmp_path / "journal", served()
    with Database(file, StoreSettings()) as db:
        assert after(db, journal, a_feedback(trace.trace_id)) == []
    with Database(file, StoreSettings()) as db:
        write_segment(journal, trace)
        collect(db, journal, {})
    with Database(file, StoreSettings()) as db:
        [complaint] = feedback_comparisons(db)
        assert complaint.trace_id == trace.trace_id


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["trace", "feedback", "feedback", "again", "collect", "call", "reopen"]),
        st.integers(0, 3),  # of which trace
        st.sampled_from([0.0, 0.4, 0.5, 1.0]),
        st.integers(0, 9),  # when the feedback came
    ),
    max_size=30,
)


@settings(max_examples=25, deadline=None)
@given(STEPS)
@pytest.mark.slow
def test_the_result_does_not_depend_on_order_restarts_or_repeats(
    steps: list[tuple[str, int, float, int]],
) -> None:
    """A trace whose newest feedback complains has a comparison that states this feedback."""
    traces = [served() for _ in range(4)]
    with tempfile.TemporaryDirectory() as place:
        file, journal = Path(place) / "u.duckdb", Path(place) / "journal"
        db = Database(file, StoreSettings())
        sent: list[Feedback] = []
        written: set[int] = set()
        for number, (step, which, score, at) in enumerate(steps):
            if step == "trace" and which not in written:
                write_segment(journal, traces[which])
                written.add(which)
            elif step == "feedback":
                when = at + number / 1000  # no two at once
                given_feedback = a_feedback(traces[which].trace_id, score=score, feedback_at=when)
                write_segment(journal, given_feedback)
                sent.append(given_feedback)
            elif step == "again" and sent:
                write_segment(journal, sent[which % len(sent)])
            elif step == "collect":
                collect(db, journal, {})
            elif step == "call":
                feedback_comparisons(db)
            elif step == "reopen":
                db.close()
                db = Database(file, StoreSettings())
        write_segment(journal, *(t for i, t in enumerate(traces) if i not in written))
        collect(db, journal, {})
        feedback_comparisons(db)
        made = {c.trace_id: c for c in comparisons_of_student(db, STUDENT)}
        assert feedback_comparisons(db) == []
        db.close()
    for trace in traces:
        of_trace = sorted(
            (f for f in sent if f.trace_id == trace.trace_id), key=lambda f: f.feedback_at
        )
        held = made.get(trace.trace_id)
        if of_trace and (of_trace[-1].score or 0) < 0.5:
            assert held is not None
            assert not held.agrees
        if held is not None:  # whatever is there is what the newest says
            assert (held.at, held.score) == (of_trace[-1].feedback_at, of_trace[-1].score)
            assert held.agrees == (held.score >= 0.5)
            assert any((f.score or 0) < 0.5 for f in of_trace)


# ---- labels for the judge ----------------------------------------------------------------------


@pytest.mark.slow
def test_judged_pairs_have_the_labels_of_judge_and_people(db: Database, journal: Path) -> None:
    def audited(at: float, agrees: bool, **changes: Any) -> str:
        values: dict[str, Any] = {"kind": "audit", "scorer": "judge", "agrees": agrees, "at": at}
        made = a_comparison(**{**values, **changes})
        write_comparisons(db, [made])
        return made.trace_id

    both, judge_only, people_only, neither = (
        audited(float(i), agrees) for i, agrees in enumerate([True, True, False, False])
    )
    corrected = audited(5.0, True)
    changed = audited(6.0, True)
    audited(7.0, True)  # no feedback on it
    others = [
        audited(8.0, True, task="other"),
        audited(9.0, True, kind="shadow"),  # the teacher's answer is what the client spoke of
        audited(9.5, True, scorer="exact"),
    ]
    write_segment(
        journal,
        a_feedback(both, score=1.0),
        a_feedback(judge_only, score=0.0),
        a_feedback(people_only, score=0.5),
        a_feedback(neither, score=0.25),
        a_feedback(corrected, score=None, correction="returns"),
        a_feedback(changed, score=0.0, feedback_at=1.0),
        a_feedback(changed, score=1.0, feedback_at=2.0),
        *(a_feedback(trace_id) for trace_id in others),
    )
    collect(db, journal, {})
    assert judged_pairs(db, "triage") == [
        (True, True),
        (True, False),
        (False, True),
        (False, False),
        (True, False),
        (True, True),
    ]
    assert judged_pairs(db, "other") == [(True, False)]
    assert judged_pairs(db, "nothing") == []


def test_answers_of_one_conversation_label_the_judge_once(db: Database, journal: Path) -> None:
    first = a_comparison(kind="audit", scorer="judge", student_id=STUDENT, at=1.0)
    same = [
        replace(first, trace_id=new_id(), agrees=False, at=2.0 + n, group_key=first.trace_id)
        for n in range(49)
    ]
    alone = replace(first, trace_id=new_id(), agrees=False, at=60.0)
    write_comparisons(db, [replace(first, group_key=first.trace_id), *same, alone])
    write_segment(journal, *(a_feedback(c.trace_id, score=1.0) for c in (first, *same, alone)))
    collect(db, journal, {})
    assert judged_pairs(db, "triage") == [(True, True), (False, True)]
